# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher as a whole, in a Pod."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import libvirt
import psutil
import pytest

from turtles.domain import paths
from turtles.domain.macs import generated_mac

from .conftest import VMI_UID, Pod, make_vmi, peer_pid, wait_for

pytestmark = pytest.mark.root

DOMAIN = """
<domain type='qemu'><name>default_testvm</name><uuid>{uid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
<on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}
<interface type='ethernet'><mac address='{mac}'/><target dev='tap0' managed='no'/><model type='virtio'/>
<mtu size='1400'/><rom enabled='no'/></interface>
<serial type='unix'><source mode='bind' path='{serial}'/></serial>
<graphics type='vnc'><listen type='socket' socket='{vnc}'/></graphics>
<memballoon model='none'/></devices></domain>
"""
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='{format}' cache='none'/>"
    "<source file='{path}'/><target dev='vd{letter}' bus='virtio'/></disk>"
)
MASQUERADE = {
    "domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
    "networks": [{"name": "default", "pod": {}}],
}
BRIDGE = {
    "domain": {"devices": {"interfaces": [{"name": "default", "bridge": {}}]}},
    "networks": [{"name": "default", "pod": {}}],
}
MASQUERADE_MAC = generated_mac(VMI_UID, "default")


def domain_xml(vmi: dict, mac: str = MASQUERADE_MAC) -> str:
    disks = ""
    for letter, volume in zip("abcdef", vmi["spec"].get("volumes", ()), strict=False):
        path, image_format = paths.disk_source(volume)
        disks += DISK.format(path=path, format=image_format, letter=letter)
    return DOMAIN.format(
        uid=VMI_UID, mac=mac, disks=disks, serial=paths.serial_socket(VMI_UID), vnc=paths.vnc_socket(VMI_UID)
    )


def make_bridge(pod: Pod, address: str, mac: str) -> None:
    """Do the node agent's part; the guest's side of the bridge is a veth pair's end too."""
    pod.nsenter("sh", "-c", "echo 67 > /proc/sys/net/ipv4/ip_unprivileged_port_start")
    pod.ip(
        "link add k6t-eth0 type bridge",
        f"addr add {address} dev k6t-eth0",
        "link set k6t-eth0 up mtu 1400",
        "tuntap add dev tap0 mode tap user 107 group 107",
        "link set tap0 master k6t-eth0 up mtu 1400",
        f"link add guest0 address {mac} type veth peer name guest1",
        "link set guest1 master k6t-eth0 up",
        "link set guest0 up",
    )


def define_domain(pod: Pod, vmi: dict) -> None:
    """Define the domain, which opens the DHCP port; the connection stays with the Pod."""
    pod.connect().defineXML(domain_xml(vmi))
    wait_for(lambda: ":0043 " in Path(f"/proc/{pod.pid}/net/udp").read_text(), "the DHCP port")


def start_domain(pod: Pod, vmi: dict) -> tuple[libvirt.virConnect, libvirt.virDomain]:
    connection = pod.connect()
    make_bridge(pod, "10.0.2.1/24", "02:00:00:00:00:99")
    domain = connection.defineXML(domain_xml(vmi))
    domain.create()
    return connection, domain


def disk_vmi(pod: Pod, tmp_path: Path) -> dict:
    disk = tmp_path / "guest.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    pod.image("containerdisk", {"disk/guest.qcow2": disk})
    return make_vmi(
        **MASQUERADE,
        volumes=[
            {"name": "containerdisk", "containerDisk": {"image": "example.org/guest"}},
            {"name": "scratch", "emptyDisk": {"capacity": "16Mi"}},
            {"name": "seed", "cloudInitNoCloud": {"userDataBase64": "SGkuXG4="}},
        ],
    )


def test_what_the_guest_writes_to_its_serial_console(pod, tmp_path):
    # A guest in one sector: writes a line to its first serial port, again and again.
    line = b"guest here\n"
    code = (
        bytes.fromhex("fa 31c0 8ed8 baf803 be147c b9")
        + len(line).to_bytes(2, "little")
        + bytes.fromhex("ac ee e2fc ebf4")
    )
    disk = tmp_path / "guest.img"
    disk.write_bytes((code + line).ljust(510, b"\0") + b"\x55\xaa" + bytes(2**20 - 512))
    pod.image("containerdisk", {"disk/guest.img": disk})
    vmi = make_vmi(**MASQUERADE, volumes=[{"name": "containerdisk", "containerDisk": {"image": "example.org/guest"}}])
    metadata = vmi["metadata"]
    identity = [f"--{key}={metadata[key]}" for key in ("name", "uid", "namespace")]
    pod.run("turtles.launcher.main:main", [*identity, "--image-volume", "--log-serial-console"])
    pod.deliver(vmi)
    program = "import sys; from turtles.launcher.tail import main; sys.exit(main())"
    container = subprocess.Popen(
        [sys.executable, "-c", program, pod.inside(paths.SERIAL_LOG_PIPE)], stdout=subprocess.PIPE
    )
    connection = pod.connect()
    make_bridge(pod, "10.0.2.1/24", "02:00:00:00:00:99")
    log = f"<log file='{paths.serial_log(VMI_UID)}' append='on'/>"
    domain = connection.defineXML(domain_xml(vmi).replace("</serial>", f"{log}</serial>"))
    domain.create()
    try:
        assert {container.stdout.readline() for _ in range(3)} == {line}
    finally:
        domain.destroy()
        domain.undefine()
        assert pod.exit_status() == 0
        container.communicate(timeout=60)
    assert container.returncode == 0


def test_runs_a_domain_as_an_ordinary_user_and_ends_when_it_is_undefined(pod, tmp_path):
    vmi = disk_vmi(pod, tmp_path)
    pod.start(vmi)
    connection, domain = start_domain(pod, vmi)
    assert domain.isActive()
    # This is how the node agent finds the Pod's namespaces.
    assert Path(f"/proc/{peer_pid(pod.socket)}/ns/net").readlink() == Path(f"/proc/{pod.pid}/ns/net").readlink()
    processes = pod.children()
    assert set(processes) == {"libvirtd", "qemu-system-x86"}
    for pid in (pod.pid, *processes.values()):
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Uid:\s107\s107\s107\s107$", status, re.M)
        for kind in ("Inh", "Prm", "Eff", "Amb"):
            assert re.search(rf"^Cap{kind}:\s0+$", status, re.M), (pid, status)
    for path in (paths.vnc_socket(VMI_UID), paths.serial_socket(VMI_UID)):
        assert pod.inside(path).is_socket()
    # The warmed cache is in use: examining QEMU again would take a child that runs for more than a second.
    libvirtd = psutil.Process(processes["libvirtd"])
    before = libvirtd.cpu_times()
    connection.getDomainCapabilities()
    after = libvirtd.cpu_times()
    assert after.children_user + after.children_system < before.children_user + before.children_system + 0.5
    domain.destroy()
    domain.undefine()
    assert pod.exit_status() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes.values())


def wait_for_libvirtd(pod: Pod) -> None:
    """Until the launcher, which starts it first, has nothing left to do without its VMI."""
    wait_for(lambda: "libvirtd" in pod.children(), "libvirtd")


def test_waits_for_its_vmi(pod, tmp_path):
    """However long the node agent is away; meanwhile libvirtd gets ready."""
    vmi = disk_vmi(pod, tmp_path)
    pod.start_waiting(vmi)
    wait_for_libvirtd(pod)
    assert not pod.socket.exists()
    pod.deliver(vmi)
    _, domain = start_domain(pod, vmi)
    assert domain.isActive()
    assert not pod.inside(paths.DELIVERED_VMI).exists()


def test_says_whom_it_waits_for(pod):
    pod.start_waiting(make_vmi(), function="variants:impatient")
    wait_for(lambda: pod.log.count("is virt-handler running on this node?") >= 2, "two reminders")
    pod.deliver(make_vmi())
    pod.connect()


def test_finds_its_vmi_where_inotify_is_used_up(pod):
    pod.start_waiting(make_vmi(), function="variants:without_inotify")
    wait_for_libvirtd(pod)
    pod.deliver(make_vmi())
    pod.connect()


def test_terminated_while_it_waits_for_its_vmi(pod):
    pod.start_waiting(make_vmi())
    wait_for_libvirtd(pod)
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.exit_status(5) == 0
    assert pod.message == ""


def test_the_vmi_of_another(pod):
    vmi = make_vmi()
    pod.start_waiting(vmi)
    vmi["metadata"]["uid"] = "another"
    pod.deliver(vmi)
    assert pod.exit_status() == 1
    assert pod.message == (f"the node agent delivered default/testvm (another) instead of default/testvm ({VMI_UID})")


def test_a_vmi_of_a_megabyte_with_secrets_is_nowhere_to_be_seen(pod):
    secret = "only-the-guest-knows"
    vmi = make_vmi(
        volumes=[{"name": "seed", "cloudInitNoCloud": {"userData": f"{secret}\n" + "x" * 1_400_000}}],
        domain={"devices": {"disks": [{"name": "seed", "disk": {"bus": "virtio"}}]}},
    )
    pod.start(vmi)
    pod.connect()
    for pid in (pod.pid, *pod.children().values()):
        for name in ("environ", "cmdline"):
            assert secret.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert secret not in pod.log
    holders = [path for path in pod.base.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holders == [pod.inside(paths.cloud_init_no_cloud_seed("seed"))]
    assert holders[0].stat().st_mode & 0o077 == 0


def test_restarted_libvirtd_finds_the_running_domain(pod, tmp_path):
    vmi = disk_vmi(pod, tmp_path)
    pod.start(vmi)
    start_domain(pod, vmi)
    qemu = pod.children()["qemu-system-x86"]
    for _ in range(2):
        libvirtd = pod.children()["libvirtd"]
        os.kill(libvirtd, signal.SIGKILL)
        wait_for(lambda old=libvirtd: pod.children().get("libvirtd", old) != old, "a new libvirtd")
        domain = wait_for(lambda: find_domain(pod), "the domain to be found again")
        # QEMU itself answers; it also makes sure that libvirtd is done with finding it before the next end.
        assert domain.blockStats("vda")
        assert pod.children()["qemu-system-x86"] == qemu
    domain.destroy()
    domain.undefine()
    assert pod.exit_status() == 0


def find_domain(pod: Pod) -> libvirt.virDomain | None:
    try:
        return pod.connect().lookupByName("default_testvm")
    except libvirt.libvirtError:
        return None


def test_works_without_a_prepared_cache(pod):
    pod.cache = None
    vmi = make_vmi(**MASQUERADE)
    pod.start(vmi)
    _, domain = start_domain(pod, vmi)
    assert domain.isActive()


def test_terminated_without_a_domain_ends_at_once(pod):
    pod.start(make_vmi())
    pod.connect()
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.exit_status(5) == 0


def test_terminated_switches_the_vm_off_after_the_grace_period(pod):
    vmi = make_vmi(**MASQUERADE)
    pod.start(vmi, grace=1)
    connection, domain = start_domain(pod, vmi)
    started = time.monotonic()
    os.kill(pod.pid, signal.SIGTERM)
    wait_for(lambda: not domain.isActive(), "the VM to be switched off")
    assert time.monotonic() - started > 0.9
    # As the node agent does once the final state is stored.
    domain.undefine()
    connection.close()
    assert pod.exit_status(3) == 0


def test_terminated_switches_a_paused_vm_off_at_once(pod):
    vmi = make_vmi(**MASQUERADE)
    pod.start(vmi, grace=60)
    connection, domain = start_domain(pod, vmi)
    domain.suspend()
    started = time.monotonic()
    os.kill(pod.pid, signal.SIGTERM)
    wait_for(lambda: not domain.isActive(), "the VM to be switched off")
    assert time.monotonic() - started < 20
    domain.undefine()
    connection.close()
    assert pod.exit_status(3) == 0


def test_terminated_ends_even_if_nobody_undefines_the_domain(pod):
    vmi = make_vmi(**MASQUERADE)
    pod.start(vmi, grace=0)
    start_domain(pod, vmi)
    os.kill(pod.pid, signal.SIGTERM)
    assert pod.exit_status(15) == 0


def udhcpc(pod: Pod, tmp_path: Path, *options: str) -> dict[str, str]:
    script = tmp_path / "udhcpc.sh"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env > {tmp_path}/lease\nexit 0\n')
    script.chmod(0o755)
    pod.nsenter(
        "busybox", "udhcpc", "-i", "guest0", "-q", "-n", "-f", "-t", "5", "-T", "1", "-s", str(script), *options,
        "-O", "mtu", "-O", "search", "-O", "hostname", "-O", "121", timeout=60, capture_output=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in (tmp_path / "lease").read_text().splitlines() if "=" in line)


def test_dhcp_masquerade(pod, tmp_path):
    pod.start(
        make_vmi(**MASQUERADE, hostname="web"),
        resolvConf="nameserver 127.0.0.53\nnameserver 10.96.0.10\nsearch default.svc.cluster.local cluster.local\n",
    )
    make_bridge(pod, "10.0.2.1/24", MASQUERADE_MAC)
    define_domain(pod, make_vmi(**MASQUERADE))
    lease = udhcpc(pod, tmp_path)
    assert lease["ip"] == "10.0.2.2"
    assert lease["mask"] == "24"
    assert lease["router"] == lease["serverid"] == "10.0.2.1"
    assert lease["dns"] == "10.96.0.10"
    assert lease["search"] == "default.svc.cluster.local cluster.local"
    assert lease["mtu"] == "1400"
    assert lease["hostname"] == "web"
    assert lease["lease"] == str(0xFFFFFFFF)


def test_dhcp_bridge_gives_the_pods_address(pod, tmp_path):
    pod.start(make_vmi(**BRIDGE))
    pod.connect()  # the Pod's address is known now
    pod.ip("addr flush dev eth0", "link set eth0 down")
    make_bridge(pod, "169.254.75.10/32", "0a:58:0a:f4:00:05")
    define_domain(pod, make_vmi(**BRIDGE))
    lease = udhcpc(pod, tmp_path)
    assert (lease["ip"], lease["mask"], lease["router"]) == ("10.244.0.5", "24", "10.244.0.1")
    assert lease["serverid"] == "169.254.75.10"


def test_dhcp_answers_only_its_guest(pod, tmp_path):
    pod.start(make_vmi(**MASQUERADE))
    pod.connect()
    make_bridge(pod, "10.0.2.1/24", "02:00:00:00:00:99")
    define_domain(pod, make_vmi(**MASQUERADE))
    with pytest.raises(subprocess.CalledProcessError):
        udhcpc(pod, tmp_path, "-t", "1")


def test_failure_is_in_the_termination_log(pod):
    pod.image("containerdisk", {"etc/motd": b"no disk here"})
    volume = {"name": "containerdisk", "containerDisk": {"image": "example.org/guest:1"}}
    pod.start(make_vmi(volumes=[volume]))
    assert pod.exit_status() == 1
    assert (
        "volume 'containerdisk': image example.org/guest:1 is not a containerDisk: it has no file in /disk"
        in pod.message
    )
    assert pod.message in pod.log
    assert not pod.socket.exists()


def test_not_enough_space_is_said_before_anything_is_written(pod):
    pod.start(make_vmi(volumes=[{"name": "huge", "emptyDisk": {"capacity": "20Ti"}}]))
    assert pod.exit_status() == 1
    assert "not enough space on the node" in pod.message
    assert "'huge' (emptyDisk)" in pod.message
    assert not any(pod.volume("ephemeral-disks").rglob("*.qcow2"))


def test_pod_without_an_address(pod):
    pod.start(make_vmi(**BRIDGE), network=["link set lo up", "link add eth0 type veth peer name node0"])
    assert pod.exit_status() == 1
    assert "interface 'default'" in pod.message
    assert "no IPv4 address" in pod.message


def test_pod_without_a_network(pod):
    pod.start(make_vmi(**BRIDGE), network=["link set lo up"])
    assert pod.exit_status() == 1
    assert "the Pod has no network interface eth0" in pod.message
