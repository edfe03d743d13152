# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions that Kubernetes adds to CEL: strings, lists, sets, regular expressions, URLs, addresses, quantities.

Source: the Kubernetes documentation "Common Expression Language in Kubernetes", "Kubernetes CEL libraries", and
cel-go's extension "strings". Values of the types URL, IP, CIDR, Quantity and Authorizer are maps with one key of their
own (``@url`` and so on) in canonical form, so that ``==`` compares what they mean.
"""

from turtles.standalone.apiserver.schema.cel.library import addresses, authorizer, lists, quantities, strings, urls
from turtles.standalone.apiserver.schema.cel.library.addresses import CIDR, IP
from turtles.standalone.apiserver.schema.cel.library.authorizer import (
    AUTHORIZER,
    DECISION,
    GROUP_CHECK,
    PATH_CHECK,
    RESOURCE_CHECK,
)
from turtles.standalone.apiserver.schema.cel.library.function import Function
from turtles.standalone.apiserver.schema.cel.library.quantities import QUANTITY
from turtles.standalone.apiserver.schema.cel.library.urls import URL

#: Types that are maps when an expression runs.
TAGGED = (URL, IP, CIDR, QUANTITY, AUTHORIZER, PATH_CHECK, GROUP_CHECK, RESOURCE_CHECK, DECISION)

FUNCTIONS: tuple[Function, ...] = (
    *strings.FUNCTIONS,
    *lists.FUNCTIONS,
    *urls.FUNCTIONS,
    *addresses.FUNCTIONS,
    *quantities.FUNCTIONS,
    *authorizer.FUNCTIONS,
)
