# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Options of modules that declare machines."""

from __future__ import annotations


class ModuleDocFragment:
    """The documentation of the options in _vm_spec.MACHINE_ARGUMENTS."""

    DOCUMENTATION = r"""
options:
  memory:
    description: Memory the guest sees, such as V(512Mi) or V(4Gi).
    type: str
  image:
    description:
      - Container image with one disk file under C(/disk). Shorthand for an entry of O(disks) named C(containerdisk).
      - A name of the catalogue of images, such as V(debian:13) or V(ubuntu:24.04), stands for the image of that
        distribution that the KubeVirt project publishes. C(docs/guest-images.md) lists them.
      - Changes by the guest are lost when it stops.
    type: str
  image_catalogue:
    description:
      - A YAML file that maps additional names to images, on the host of the module. They take precedence over the
        collection's.
      - Each is a mapping with C(container_disk), an image, C(disk), the address of a disk, C(checksum), as
        M(ansible.builtin.get_url) has it, and C(user). O(image) needs C(container_disk).
      - If not set, the environment variable E(TURTLES_IMAGE_CATALOGUE) is used.
    type: path
  disks:
    description: Disks, in the order in which the guest sees them. O(image) comes first, the cloud-init seed last.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the disk and its volume.
        type: str
        required: true
      image:
        description: Container image with one disk file under C(/disk), or a name as O(image) has it.
        type: str
      claim:
        description: PersistentVolumeClaim that holds the disk.
        type: str
      data_volume:
        description: DataVolume (Containerized Data Importer) that fills the claim of its name, which holds the disk.
        type: str
      capacity:
        description: Size of an empty disk that lives as long as the guest, such as V(2Gi).
        type: str
      type:
        description: Type of device the guest sees.
        type: str
        choices: [disk, cdrom, lun]
        default: disk
      bus:
        description: Bus of the disk. Defaults to V(virtio), or V(sata) for a CD-ROM.
        type: str
        choices: [virtio, sata, scsi, usb]
      boot_order:
        description: Position in the boot order, from 1.
        type: int
      serial:
        description: Serial number the guest sees.
        type: str
      read_only:
        description: Whether the disk is read-only for the guest.
        type: bool
  interfaces:
    description: Network interfaces. Defaults to one on the Pod network with the server's default binding.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the interface and its network.
        type: str
        required: true
      binding:
        description: How the guest is connected to the network. V(passt) needs a launcher with Debian 13.
        type: str
        choices: [bridge, masquerade, passt]
        default: masquerade
      network:
        description: NetworkAttachmentDefinition (name, or namespace/name). Defaults to the Pod network.
        type: str
      model:
        description: Model of the network card.
        type: str
      mac_address:
        description: MAC address of the guest's card.
        type: str
      boot_order:
        description: Position in the boot order, from 1.
        type: int
      ports:
        description: TCP ports forwarded to the guest with V(masquerade) and V(passt). Defaults to all.
        type: list
        elements: int
      state:
        description:
          - Whether the interface has a link. Changes apply to a running guest.
          - V(absent) unplugs a V(bridge) interface on a secondary network from a running guest. The server then removes
            it from the VirtualMachine. Just leaving it out requires a restart of the guest.
          - A V(bridge) interface on a secondary network that is added to a running VirtualMachine is hot-plugged.
        type: str
        choices: [up, down, absent]
  cloud_init:
    description: Data for cloud-init in the guest.
    type: dict
    suboptions:
      type:
        description: How the guest finds the data.
        type: str
        choices: [nocloud, configdrive]
        default: nocloud
      user_data:
        description:
          - Text, or a mapping that becomes cloud-config.
          - It is stored in the object, so anyone who can read the object can read it. Secrets belong in a Secret
            (O(cloud_init.user_data_secret)).
        type: raw
      user_data_secret:
        description: Name of a Secret whose key C(userdata) has the user data.
        type: str
      network_data:
        description: Text, or a mapping.
        type: raw
      network_data_secret:
        description: Name of a Secret whose key C(networkdata) has the network data.
        type: str
  ssh_keys:
    description:
      - Public keys for the guest's default user, added to O(cloud_init.user_data), which must be cloud-config, as
        C(ssh_authorized_keys).
      - Give the keys themselves, not paths of files; see the example.
    type: list
    elements: str
  hostname:
    description: Host name of the guest. Defaults to the object's name.
    type: str
  subdomain:
    description:
      - Subdomain of the guest's host name. With a headless Service of that name, the cluster's DNS knows the guest as
        C(hostname.subdomain.namespace.svc).
    type: str
  termination_grace_period:
    description: Seconds to wait for the guest to shut down before it is powered off.
    type: int
  node_selector:
    description: Labels a node must have.
    type: dict
  affinity:
    description: Nodes that are preferred or required, also by the Pods on them, as C(affinity) of a Pod has it.
    type: dict
  machine_type:
    description: Chipset that QEMU emulates, such as V(q35) or a version of it. Defaults to that of the server.
    type: str
  bootloader:
    description:
      - Firmware the guest boots with, BIOS if not given. V(efi) is without secure boot; declare that in the template's
        C(domain.firmware.bootloader.efi.secureBoot), with C(domain.features.smm).
    type: str
    choices: [bios, efi]
  smbios_uuid:
    description: UUID of the system that the guest sees. A VirtualMachine without one gets a permanent one.
    type: str
  hugepage_size:
    description: Size of the huge pages the guest's memory is in, V(2Mi) or V(1Gi). The node must have them.
    type: str
  headless:
    description: Whether the guest has no graphics card, and so no VNC.
    type: bool
"""

    # The documentation of the option cpu alone.
    CPU = r"""
options:
  cpu:
    description: Processors the guest sees.
    type: dict
    suboptions:
      cores:
        description: Cores per socket.
        type: int
      sockets:
        description: Number of sockets.
        type: int
      threads:
        description: Threads per core.
        type: int
      model:
        description: CPU model of libvirt, V(host-model) or V(host-passthrough).
        type: str
"""

    # Of what becomes a VirtualMachine, and not only an instance.
    VIRTUAL_MACHINE = r"""
options:
  instancetype:
    description:
      - The instance type that the machine takes its size from, a name such as V(u1.small), or a dictionary with
        C(name) and C(kind). A bare name means a VirtualMachineClusterInstancetype.
      - The API's names of the keys can be used as well.
      - Further keys are C(revision_name), the ControllerRevision that counts instead of the object itself, and instead
        of C(name) C(infer_from_volume), a volume whose claim names the instance type in its labels, with
        C(infer_from_volume_failure_policy), V(Reject) or V(Ignore).
      - The machine can't have O(memory) or O(cpu) in addition. It keeps the instance type as it was when it
        was first started with it.
    type: raw
  preference:
    description:
      - The preference that provides defaults, such as the bus of disks. A name, which means a
        VirtualMachineClusterPreference, or a dictionary as for O(instancetype).
    type: raw
  data_volume_templates:
    description:
      - DataVolumes that are created and deleted with the machine, as in C(spec.dataVolumeTemplates) of the KubeVirt
        API. O(disks[].data_volume) names them.
      - A cluster with upstream KubeVirt needs the Containerized Data Importer for them.
    type: list
    elements: dict
"""
