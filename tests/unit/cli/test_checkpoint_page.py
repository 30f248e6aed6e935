"""What `detrank checkpoints show` says of one checkpoint."""

import pytest

from app.cli.commands.checkpoints import describe, options
from app.cli.session import Failed


def test_what_was_dropped_and_initialised_is_shown_with_the_reason(capsys):
    reasons = {
        "dropped": [{"why": "the projection head of the pretraining", "keys": ["head.0.weight"]}],
        "initialised": [{"why": "a backbone brings none", "keys": [f"rpn.{i}" for i in range(9)]}],
    }
    describe(
        {
            "id": "ckpt_1",
            "name": "infomin",
            "state": "ready",
            "kind": "backbone",
            "architecture": "detrank/maskrcnn_fpn",
            "parameters": 5,
            "format": "pycontrast",
            "manifest": {"layers": [], "reasons": reasons},
        }
    )
    said = capsys.readouterr().out
    assert "dropped: head.0.weight: the projection head of the pretraining" in said
    assert "initialised: rpn.0, rpn.1, rpn.2, rpn.3 and 5 more: a backbone brings none" in said


def test_manifest_of_an_older_version_is_shown_too(capsys):
    describe({"id": "ckpt_1", "name": "x", "state": "ready", "manifest": {"layers": []}})
    assert "ckpt_1" in capsys.readouterr().out


def test_options_are_words():
    assert options([]) is None
    assert options(["norm=frozen", "backbone=timm/x"]) == {"norm": "frozen", "backbone": "timm/x"}
    assert options(["dilation=true", 'anchors={"sizes": [[8]]}']) == {
        "dilation": True,
        "anchors": {"sizes": [[8]]},
    }
    with pytest.raises(Failed, match="name=value"):
        options(["norm"])
