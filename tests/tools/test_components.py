"""A missing component skips on a developer's machine and fails in CI, unless nobody could install it."""

from __future__ import annotations

import pytest

from tests.components import requires_component


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("EVERSTEP_TEST_ROLE", "main")
    return monkeypatch


def test_a_component_that_is_there_lets_the_test_run(ci: pytest.MonkeyPatch) -> None:
    requires_component("json")
    requires_component("sh")
    requires_component("anything", present=True)


def test_outside_ci_a_missing_component_skips_with_the_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="no_such_thing is missing: install it"):
        requires_component("no_such_thing", hint="install it")


def test_in_ci_a_missing_installable_component_fails(ci: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception, match="no_such_thing is missing"):
        requires_component("no_such_thing")


def test_in_ci_what_nobody_can_install_still_skips(ci: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match="the_cloud is missing"):
        requires_component("the_cloud", installable=False)


def test_the_small_environments_skip_what_the_main_one_runs(ci: pytest.MonkeyPatch) -> None:
    ci.setenv("EVERSTEP_TEST_ROLE", "core")

    with pytest.raises(pytest.skip.Exception):
        requires_component("no_such_thing")
