"""How to read a map, and what it cannot say, in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from torch import Tensor

from ..maps.attribution import Attribution, Family
from ..maps.values import STATUS_MEANINGS

HOW_TO_READ = {
    "heatmap": (
        "Bright places speak for the label, the brighter the more; grey places have no say. The brightest 1 % share "
        "the top colour."
    ),
    "jet": "Red places speak most for the label, blue places least. The reddest 1 % share the top colour.",
    "signed": (
        "Red places speak for the label, blue places against it; pale places have no say. Both are on one scale: the "
        "strongest 1 % share the full colour."
    ),
    "grey": "Where pixels stand out from plain grey, the label depends on them; plain grey has no say.",
    "mask": (
        "What stays bright holds at least half as much evidence as the brightest 1 % of the picture; the rest is "
        "darkened."
    ),
    "sure": "White places speak for the label beyond doubt (95 %); of black ones that is not sure.",
    "superpixels": "Outlined regions weigh most: green speaks for the label, red against it; the rest is dimmed.",
    "map": (
        "Each tile is one place of the model's own grid; brighter (or redder) speaks more for the label. The strongest "
        "1 % share the top colour."
    ),
}
SCALE = "Each map is scaled by itself: compare places within a picture, not brightness between pictures."
UNSEEN = "What lies outside the dashed line was cut off before the model looked."

UNSURE = "unsure"  # what a map is called that something is said against

_CANNOT_SAY: dict[Family, str] = {
    "layer": (
        "It shows the region that counted at one layer, at that layer's coarse grid; it does not show exact outlines, "
        "nor what about the region mattered."
    ),
    "relevance": (
        "It divides the score among places by fixed rules; another set of rules divides it differently, and a share is "
        "not a promise of what would happen if the place were changed."
    ),
    "gradient": (
        "It shows which pixels the score reacts to when they change a little; that is not what made the score high, "
        "and single dots are mostly noise."
    ),
    "guided": (
        "It shows the edges that pass through the network; such pictures stay sharp even where they say little about "
        "this label, so read them together with a heatmap."
    ),
    "perturbation": (
        "It was found by hiding parts of the photo; hidden parts make pictures that the model never learned from, and "
        "parts that matter only together can be missed."
    ),
}
_FAINT = 0.05  # of a rival's score: less is not worth a word
_GENERAL = "It shows where the model looked, not why, and not whether the answer is right."


def cannot_say(attribution: Attribution) -> str:
    """What maps of this kind leave open."""
    return _GENERAL if attribution.family is None else _CANNOT_SAY[attribution.family]


_STAYED = {
    "class_token": "the class token keeps {}",
    "registers": "registers keep {}",
    "position_embedding": "the position embedding keeps {}",
    "past_layer": "{} goes past the layer",
    "kept": "other constants keep {}",
    "off_picture": "tokens off the picture (class token, registers) hold {}",
    "absorbed": "biases absorb {}",
    "rest": "{} is nowhere",
}


def status_words(attribution: Attribution, index: int) -> str:
    """What the status of a map means, and how it came to it where that is known; "" for "ok"."""
    status = attribution.status[index]
    if status == "ok":
        return ""
    why = _covered(attribution, index) if status == "misplaced" else _cause(attribution, index)
    return STATUS_MEANINGS[status] + why


def status_remarks(attribution: Attribution, index: int) -> tuple[str, ...]:
    """What the status of a map means as a remark; none for "ok"."""
    words = status_words(attribution, index)
    return (f"{attribution.status[index].replace('_', '-')}: {words}",) if words else ()


def other_remarks(attribution: Attribution, index: int) -> tuple[str, ...]:
    """The remarks on a map beside its status's."""
    if not attribution.remarks:
        return ()
    of_status = f"{attribution.status[index].replace('_', '-')}: "
    return tuple(said for said in attribution.remarks[index] if not said.startswith(of_status))


def notice(attribution: Attribution, index: int) -> tuple[str, str]:
    """What stands on a picture of a map: a word, and why in short; ("", "") where nothing is to be said."""
    others = "; ".join(map(in_short, other_remarks(attribution, index)))
    words = status_words(attribution, index)
    if words:
        return attribution.status[index].replace(
            "_", "-"
        ), f"{words}; {others}" if others else words
    return (UNSURE, others) if others else ("", "")


def remark_lines(attributions: Sequence[Attribution], index: int) -> list[str]:
    """A line for each remark on a photo's maps: of which map, and the whole of it."""
    said: dict[str, list[str]] = {}
    for attribution in attributions:
        whose = f"{attribution.title} of {attribution.labels[index]}"
        for remark in attribution.remarks[index] if attribution.remarks else ():
            said.setdefault(remark, []).append(whose)
    return [f"{', '.join(dict.fromkeys(whose))}: {remark}." for remark, whose in said.items()]


def in_short(remark: str) -> str:
    """The first part of a remark, up to where it begins to explain."""
    return re.split(r"[,;:] ", remark, maxsplit=1)[0]


def _covered(attribution: Attribution, index: int) -> str:
    extent = attribution.facts[index]["extent"]
    first = extent[: len(extent) // 2]
    last = extent[len(extent) // 2 :]
    columns, rows, *slices = (f"{a} to {b}" for a, b in zip(first, last, strict=True))
    of_depth = f"slices {slices[0]}, " if slices else ""
    return f": it covers {of_depth}rows {rows} and columns {columns}"


def _cause(attribution: Attribution, index: int) -> str:
    status = attribution.status[index]
    facts = attribution.facts[index] if attribution.facts else {}
    account = facts.get("relevance")
    if status == "blown_up":
        return f", at {facts['blown_up_by']}" if facts.get("blown_up_by") else ""
    if account is None or status not in ("empty", "unbalanced", "withheld"):
        return ""
    if status == "empty" and attribution.scores[index] < 0:
        return "; the score itself is negative"
    lost = f", most at {facts['lost_at']}" if facts.get("lost_at") else ""
    return f"; {words}{lost}" if (words := account_words(attribution, index)) else ""


def account_words(attribution: Attribution, index: int) -> str:
    """Where relevance stayed that is not in the map, such as "biases absorb 40 %"; "" where less than a tenth is."""
    account = attribution.facts[index].get("relevance") if attribution.facts else None
    if account is None or not account["size"]:
        return ""
    whole = math.copysign(account["size"], account["started"])
    if abs(account["started"] - account["arrived"]) <= 0.1 * account["size"]:
        return ""
    parts = account.get("kept_by", {})
    stayed = {**account, **parts, "kept": account["kept"] - sum(parts.values())}
    shares = {name: stayed.get(name, 0.0) / whole for name in _STAYED}
    return ", ".join(
        _STAYED[name].format(f"{100 * share:.0f} %")
        for name, share in shares.items()
        if abs(share) > 0.01
    )


def trust_words(attribution: Attribution, index: int) -> str:
    """How far a map can be trusted, such as "600 samples; its error is 10 % of its signal"."""
    facts = attribution.facts[index] if attribution.facts else {}
    said = [f"{facts['samples']:,} samples"] if "samples" in facts else []
    if facts.get("relative_error") is not None:
        said.append(f"its error is {facts['relative_error']:.0%} of its signal")
    if facts.get("r2_held_out") is not None:
        said.append(
            f"a linear model has {max(facts['r2_held_out'], 0):.0%} of the score's variance"
        )
    if facts.get("locally_linear") is False:
        said.append("the model is not locally linear")
    said += filter(None, (rivals_words(attribution, index), account_words(attribution, index)))
    return "; ".join(said)


def rivals_words(attribution: Attribution, index: int) -> str:
    """Which other classes' evidence elsewhere was taken away, and which part of each score; "" without rivals."""
    rivals = attribution.facts[index].get("rivals") if attribution.facts else None
    if rivals is None:
        return ""
    taken = [f"{r['label']} ({r['weight']:.0%})" for r in rivals if r["weight"] >= _FAINT]
    if not taken:
        return f"no other class looks elsewhere ({sum(r['weight'] for r in rivals):.0%} taken away)"
    return f"what other classes see elsewhere is taken away: {', '.join(taken)}"


def where_words(attribution: Attribution, index: int) -> str:
    """Where the peak lies in what the model saw, such as "upper left" or "centre"; "upper left of frame 3"."""
    field = attribution.map[index]
    if field.ndim == 3:
        deep = int(field.nan_to_num().flatten(1).amax(1).argmax())
        frame = int((deep + 0.5) / len(field) * attribution.image_size[0])
        return f"{_side_words(field[deep])} of frame {frame}"
    return _side_words(field)


def _side_words(field: Tensor) -> str:
    row, column = divmod(int(field.nan_to_num().argmax()), field.shape[1])
    down = ("upper", "", "lower")[min(2, int(3 * (row + 0.5) / field.shape[0]))]
    across = ("left", "", "right")[min(2, int(3 * (column + 0.5) / field.shape[1]))]
    if not down or not across:
        return {
            "upper": "upper middle",
            "lower": "lower middle",
            "left": "left",
            "right": "right",
        }.get(down + across, "centre")
    return f"{down} {across}"


def clock_words(seconds: float) -> str:
    """A duration, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
