# SPDX-License-Identifier: GPL-3.0-or-later
"""Acting as another user, as ``kubectl --as`` does.

Source: Kubernetes documentation, "User impersonation".
"""

from urllib.parse import unquote

from aiohttp import web

from turtles.standalone.apiserver.access.auth import ANONYMOUS, User
from turtles.standalone.apiserver.access.rbac import Attributes, Authorizer
from turtles.standalone.apiserver.wire.errors import bad_request
from turtles.standalone.apiserver.wire.options import readable

PREFIX = "impersonate-"
_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_GROUP = "authentication.k8s.io"


def impersonated(request: web.BaseRequest, user: User, authorizer: Authorizer) -> User:
    """Return who the request is to be done as: the user that its headers name, else the one who sent it.

    :raises StatusError: 403 when ``user`` may not act as them, 400 for headers that name no user.
    """
    headers = request.headers
    if not any(name.lower().startswith(PREFIX) for name in headers):
        return user
    name = readable(headers.get("Impersonate-User", ""))
    asked = tuple(readable(one) for one in headers.getall("Impersonate-Group", []))
    uid = readable(headers.get("Impersonate-Uid", ""))
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            extra.setdefault(readable(unquote(header[len(_EXTRA) :])).lower(), []).append(readable(value))
    if not name:
        raise bad_request("groups, uids and extras can't be impersonated without a user")
    groups = asked
    namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
    if name.startswith(_ACCOUNT) and account:
        wanted = [Attributes("impersonate", "", "v1", "serviceaccounts", "", namespace, account)]
        groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    else:
        wanted = [Attributes("impersonate", "", "v1", "users", name=name)]
    wanted += [Attributes("impersonate", "", "v1", "groups", name=one) for one in asked]
    if uid:
        wanted.append(Attributes("impersonate", _GROUP, "v1", "uids", name=uid))
    for key, values in extra.items():
        wanted += [Attributes("impersonate", _GROUP, "v1", "userextras", key, name=value) for value in values]
    for one in wanted:
        authorizer.check(user, one)
    known = "system:unauthenticated" if name == ANONYMOUS.name else "system:authenticated"
    if known not in groups:
        groups = (*groups, known)
    return User(name, groups, uid, tuple((key, tuple(values)) for key, values in extra.items()))
