# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Iterator

import pytest
from file_server import FileServer, serving


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as found:
        yield found
