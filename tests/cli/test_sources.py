"""What is read from the sources is what the catalogs list."""

from __future__ import annotations

import inspect

from seewhy.cli import sources
from seewhy.engine.targets.resolve import FORMS
from seewhy.influence.solvers import SOLVERS
from seewhy.maps.box_rules import RULES
from seewhy.methods.catalog import METHODS
from seewhy.metrics.catalog import LOCALIZATION, METRICS
from seewhy.models.devices import DEVICES
from seewhy.models.families import DEFAULT_MODEL, imagenet_labels
from seewhy.render.styles import STYLES

_OF_TEXTS = ("running", "settings", "method", "options", "kwargs")


def test_methods_their_titles_and_their_options() -> None:
    found = sources.methods()
    assert list(found) == list(METHODS)
    for name, method in METHODS.items():
        told = found[name]
        assert (told.title, told.paper, told.at) == (method.title, method.paper, method.at)
        assert told.signed == method.signed
        assert told.defaults == method.told_options
        assert told.options == tuple(method.told_options)


def test_metrics_and_their_settings() -> None:
    found = sources.metrics()
    assert list(found) == [*METRICS, *LOCALIZATION]
    for name, kind in {**METRICS, **LOCALIZATION}.items():
        assert found[name].title == kind.title
        assert set(inspect.signature(kind).parameters) - set(_OF_TEXTS) <= set(found[name].options)


def test_solvers_and_their_settings() -> None:
    found = sources.solvers()
    assert list(found) == list(SOLVERS)
    for name, kind in SOLVERS.items():
        assert found[name].options == tuple(inspect.signature(kind).parameters)


def test_lists_of_names() -> None:
    assert sources.names("render.styles", "STYLES") == STYLES
    assert sources.names("maps.box_rules", "RULES") == tuple(RULES)
    assert sources.names("engine.targets.resolve", "FORMS") == tuple(FORMS)
    assert sources.names("models.devices", "DEVICES") == DEVICES
    assert sources.embedded_model() == DEFAULT_MODEL


def test_the_labels_of_the_embedded_model() -> None:
    assert sources.imagenet_labels() == imagenet_labels()
