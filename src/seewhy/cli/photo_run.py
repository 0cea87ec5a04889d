"""What explain, evaluate and localize share: photos, a model, what is asked of it, and the folder that it goes into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..data.disk import Json
from ..data.images import find_images
from ..data.run_folder import RunFolder, usable_folder
from ..engine.masking import keep_allocator_memory
from ..errors import ImageError, InputError
from ..methods.explain import explained
from ..methods.explanation import Explanation
from ..methods.request import Request
from . import parsing
from .groups import Asked, How
from .saving import done_before, remark, what_is_saved
from .show import Shown, progress, tell_skipped


class PhotoRun:
    """A command over photos.

    Args:
        photos: files and folders.
        asked, how: what the command line says.
        methods: by their names in the catalog.
        out: where what comes out goes; made at once.
        ledger: whether account is kept of relevance.

    Attributes:
        paths: of all photos.
        request: what is asked of the model.
        names, done: what the photos are called, and which of them were done before; once `showing`.
        unreadable: why photos were left out.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        asked: Asked,
        how: How,
        methods: Sequence[str],
        *,
        out: Path,
        ledger: bool = False,
    ) -> None:
        self.photos, self.paths, self.out = photos, find_images(photos), out
        usable_folder(out)
        model = parsing.loaded_model(asked, how)
        keep_allocator_memory()
        self.request = Request.of(
            model,
            methods=methods,
            targets=parsing.targets(asked.target or ["top1"], model),
            layers=parsing.layers(asked.layer),
            options=parsing.options(asked.option or []),
            batch_size=asked.batch_size,
            ledger=ledger,
            max_pixels=how.max_pixels,
        )
        self.names: list[str] = []
        self.done: set[str] = set()
        self.unreadable: dict[Path, str] = {}

    def run_folder(
        self, kind: str, more: Json, close: Callable[[RunFolder], object] | None = None
    ) -> RunFolder:
        """The folder of a run of this request, and of what more its answers depend on."""
        request = {**self.request.told(), **more}
        return RunFolder(self.out, kind=kind, request=request, tell=remark, close=close)

    @property
    def on_bad_image(self) -> Callable[[Path, InputError], None] | None:
        """One bad file does not stop a folder; a single one is an error."""
        return None if len(self.paths) == 1 else self._leave_out

    def _leave_out(self, path: Path, error: InputError) -> None:
        self.unreadable[path] = str(error)

    @contextmanager
    def showing(self, what: str, run: RunFolder, *, told: bool = False) -> Iterator[Shown]:
        """A bar over the photos, once it is known which were done before; methods of many passes move it too."""
        self.names, self.done = done_before(run, self.photos, self.request.model)
        samples = parsing.samples(self.request.methods, len(self.paths), self.request.batch_size)
        with progress(what, len(self.paths), samples=samples, told=told) as show:
            options = parsing.with_progress(self.request, show.within)
            self.request = replace(self.request, options=options)
            yield show

    def explanations(self, show: Shown) -> Iterator[Explanation]:
        """Of the photos that are not done, batch by batch."""
        return explained(
            self.request,
            self.photos,
            progress=show,
            on_bad_image=self.on_bad_image,
            without=self.done,
        )

    def check_any_read(self, run: RunFolder) -> None:
        """Raises an ImageError if nothing is in the folder of these photos."""
        if not any(name in run for name in self.names):
            first = next(iter(self.unreadable.values()))
            raise ImageError(
                f"none of the {len(self.paths)} pictures can be read; the first: {first}"
            )

    def what_is_saved(self, run: RunFolder) -> str:
        """For an interrupt."""
        return what_is_saved(run, self.names)

    def skipped(self) -> list[dict[str, str]]:
        """The photos that were left out, and why."""
        return [{"name": str(path), "error": said} for path, said in self.unreadable.items()]

    def status(self) -> int:
        """Tells of the photos that were left out; the exit status, 1 if there are any."""
        tell_skipped(self.unreadable.values())
        return 1 if self.unreadable else 0
