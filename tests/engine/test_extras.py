import sys

import pytest

from fastgan_engine.errors import UserError
from fastgan_engine.extras import require


def test_an_installed_module_is_returned():
    import numpy.linalg

    assert require("numpy.linalg", extra="any") is numpy.linalg


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(UserError, match=r"package no_such_package.*fastgan-engine\[ui\]"):
        require("no_such_package.part", extra="ui")


def test_what_an_installed_package_itself_lacks_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "half_a_package", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("half_a_package", extra="ui")
