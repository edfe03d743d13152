# SPDX-License-Identifier: GPL-3.0-or-later
"""ServiceAccounts."""

from typing import Any

from turtles.standalone.apiserver.builtin.columns import AGE, NAME, as_list, column, created, name_of
from turtles.standalone.apiserver.builtin.strategy import Strategy
from turtles.standalone.apiserver.wire.errors import Object


class ServiceAccounts(Strategy):
    """ServiceAccounts."""

    returns_deleted = True
    subresources = (("token", ("create",), "TokenRequest", "authentication.k8s.io", "v1"),)
    columns = (NAME, column("Secrets", "@core.v1.ServiceAccount.secrets"), AGE)

    def cells(self, obj: Object) -> list[Any]:
        return [name_of(obj), len(as_list(obj.get("secrets"))), created(obj)]
