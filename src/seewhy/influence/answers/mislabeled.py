"""Labels to check first: the training examples with the largest influence on themselves."""

from __future__ import annotations

from ...arguments import checked
from ...errors import InputError
from ..index.building import Tell
from ..index.index import InfluenceIndex
from ..index.manifest import chances_of
from ..index.questions import Suspect


@checked
def mislabeled(
    index: InfluenceIndex, top: int = 24, *, progress: Tell | None = None
) -> list[Suspect]:
    """The examples with the largest self-influence, largest first (Koh and Liang, ICML 2017, section 5.4).

    What the model could only learn by heart: wrong labels, and rare or odd pictures.

    Args:
        index: fit with `data`, or opened with it.
        top: how many.
        progress: see `InfluenceIndex.self_influence`.

    Raises:
        InputError: all are equal, as with the solver "embedding".

    Example:
        >>> from seewhy.influence import InfluenceIndex, mislabeled
        >>> index = InfluenceIndex.fit(net, (images, labels), l2=0.01)
        >>> [suspect.index for suspect in mislabeled(index, top=1)]
        [5]
    """
    if top < 1:
        raise InputError(f"top={top} cannot be listed; give at least 1")
    own = index.self_influence(progress=progress)
    if len(own) > 1 and float(own.max()) == float(own.min()):
        raise InputError(
            f"solver={index.solver.name!r} gives every example the same self-influence, {float(own[0]):.3g}, which "
            "ranks nothing; use an index of another solver, such as 'last_layer'"
        )
    names, labels = index.names, index.labels.tolist()
    found = []
    for place in own.argsort(descending=True, stable=True)[:top].tolist():
        at = int(index.ids[place])
        chances = chances_of(index.problem.call, index.data[at][0][None])[0]
        says, label = int(chances.argmax()), labels[place]
        told = (at, names[place], label, index.classes[label], float(own[place]))
        found.append(Suspect(*told, index.classes[says], says, probability=float(chances[says])))
    return found
