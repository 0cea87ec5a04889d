"""Black boxes: what a function is given, what is read from it, and what it cannot be asked for."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.data.preprocess import Preprocess
from seewhy.engine.black_box import BlackBox
from seewhy.engine.layers import unwrap
from seewhy.engine.trace import Trace
from seewhy.errors import ArgumentTypeError, InputError, ModelError, TargetError
from seewhy.methods.ablation import ablation_cam, score_cam
from seewhy.methods.catalog import METHODS
from seewhy.methods.occlusion import occlusion
from seewhy.models.model import wrap
from tiny_models import TinyCNN, pictures, randomised

UNIT = Preprocess((8, 8), 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")


def brightness(x: Any) -> Any:
    """Two scores of each picture: its mean, and that of its left half."""
    return np.stack([x.mean((1, 2, 3)), x[..., : x.shape[-1] // 2].mean((1, 2, 3))], 1)


@pytest.mark.parametrize(
    "said",
    [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean((2, 3)).double(),
        lambda x: x.mean((2, 3)).requires_grad_(),
        lambda x: x.numpy().mean((2, 3)),
        lambda x: x.numpy().mean((2, 3)).tolist(),
        lambda x: tuple(x.numpy().mean((2, 3))),
        lambda x: [x.numpy().mean((2, 3))],  # a session's list of outputs
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_scores_come_in_many_forms(said: Callable[[Tensor], Any], n: int) -> None:
    x = pictures(n, 8)
    found = BlackBox(said)(x)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, x.mean((2, 3)))


@pytest.mark.parametrize("n", [1, 3])
def test_one_score_for_each_picture_is_a_column(n: int) -> None:
    x = pictures(n, 8)
    for said in (lambda x: x.amax((1, 2, 3)), lambda x: x.amax((1, 2, 3)).tolist()):
        torch.testing.assert_close(BlackBox(said)(x), x.amax((1, 2, 3))[:, None])
    assert BlackBox(lambda x: x.amax((1, 2, 3)) > 0)(x).dtype == torch.bool
    assert (
        BlackBox(lambda x: (x.amax((1, 2, 3)) > 0).tolist(), gives="score")(x).dtype
        == torch.float32
    )


def test_detectors_records_are_for_targets_to_read() -> None:
    record = {"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "image_id": "a"}
    read = BlackBox(lambda x: [record] * 2)(pictures(2, 8))
    assert [one.pop("image_id") for one in read] == ["a", "a"]
    torch.testing.assert_close(read, [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1)}] * 2)
    whole = {"boxes": torch.zeros(2, 1, 4), "scores": torch.ones(2, 1, 3)}
    torch.testing.assert_close(BlackBox(lambda x: whole)(pictures(2, 8)), whole)


def found_by(kind: Callable[[Any], Any], *, empty: bool = False) -> dict[str, Any]:
    boxes = np.zeros((0, 4)) if empty else np.array([[4.0, 4, 8, 8], [0, 0, 2, 2]])
    return {
        "boxes": kind(boxes),
        "labels": kind(np.arange(len(boxes))),
        "scores": kind(np.full(len(boxes), 0.5)),
    }


@pytest.mark.parametrize(
    "kind", [lambda a: a, np.ndarray.tolist, torch.from_numpy, lambda a: a.astype(object).tolist()]
)
def test_records_of_arrays_and_lists_are_read(kind: Callable[[Any], Any]) -> None:
    said = BlackBox(lambda x: [found_by(kind), found_by(kind, empty=True)])(pictures(2, 8))
    for record, n in zip(said, (2, 0), strict=True):
        assert record["boxes"].shape == (n, 4)
        assert record["labels"].dtype == torch.long
    similarity = seewhy.methods.DetectionSimilarity((4, 4, 8, 8), 0)
    torch.testing.assert_close(
        similarity(said).double(), torch.tensor([0.5, 0.0], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            [{"boxes": [[0, 0, 1, 1]], "labels": ["cat"], "scores": [0.5]}] * 2,
            "'labels' as a list of no numbers",
        ),
        (
            [{"boxes": [[0, 0, 1, 1], [0]], "labels": [0], "scores": [0.5]}] * 2,
            "'boxes' as a list of no numbers",
        ),
        ([{"boxes": [[0, 0, 1, 1]]}], "gave 1 records for 2 pictures"),
    ],
)
def test_records_that_cannot_be_read(said: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        BlackBox(lambda x: said)(pictures(2, 8))


def test_records_that_lack_what_the_target_reads() -> None:
    with pytest.raises(TargetError, match="no tensor labels, scores"):
        seewhy.methods.DetectionSimilarity((4, 4, 8, 8), 0)([{"boxes": torch.zeros(1, 4)}])


def test_what_a_function_takes() -> None:
    taken: list[Any] = []

    def take(given: Any) -> Any:
        taken.append(given)
        return np.zeros((len(given), 2))

    x = torch.rand(2, 3, 8, 10, dtype=torch.float64).to(memory_format=torch.channels_last)
    for takes in (None, "array", "pictures"):
        BlackBox(take, takes=takes)(x)
    tensor, array, photos = taken
    torch.testing.assert_close(tensor, x.float(), rtol=0, atol=0)
    assert tensor.is_contiguous()
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, x.float().numpy())
    assert photos.dtype == np.uint8
    np.testing.assert_array_equal(photos, np.rint(x.float().numpy() * 255).transpose(0, 2, 3, 1))
    BlackBox(take, takes="pictures")(x[:, :1])
    np.testing.assert_array_equal(taken[-1], np.repeat(photos[..., :1], 3, 3))


def test_photos_are_what_they_were_before_preprocessing() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    taken: list[Any] = []

    def take(photos: Any) -> Any:
        taken.append(photos)
        return [[0.0, 1.0]] * len(photos)

    preprocess = Preprocess((224, 224), None, seewhy.IMAGENET.mean, seewhy.IMAGENET.std, "bilinear")
    model = wrap(take, takes="pictures", preprocess=preprocess, labels=["no", "yes"])
    x, _ = preprocess.batch([seewhy.images.read_image(photo)])
    assert model(x).tolist() == [[0.0, 1.0]]
    np.testing.assert_array_equal(taken[0][0], photo)


def test_a_function_may_write_into_what_it_is_given() -> None:
    def careless(x: Any) -> Any:
        x -= x.mean()
        return x.std((1, 2, 3))

    x = pictures(2, 8)
    before = x.clone()
    for takes in ("tensor", "array"):
        wrap(careless, takes=takes)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: 1 / 0,
            r"the black box <lambda> raised ZeroDivisionError on tensor \(2, 3, 8, 8\): division by zero",
        ),
        (lambda x: np.ones(3), r"gave scores of shape \(3,\) for 2 pictures; give \(N, K\)"),
        (lambda x: x, r"gave scores of shape \(2, 3, 8, 8\) for 2 pictures"),
        (lambda x: 0.5, r"gave scores of shape \(\) for 2 pictures"),
        (lambda x: np.ones((2, 0)), r"gave scores of shape \(2, 0\)"),
        (lambda x: {1, 2}, r"gave a set; give scores \(N, K\)"),
        (lambda x: ["cat", "dog"], r"gave a list; give scores \(N, K\)"),
        (lambda x: [[1, 2], [3]], r"gave a list; give scores \(N, K\)"),
        (lambda x: None, r"gave a NoneType; give scores \(N, K\)"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(function: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        BlackBox(function)(pictures(2, 8))
    assert "\n" not in str(caught.value)


def test_arguments() -> None:
    with pytest.raises(
        InputError, match=r"takes='photo' is not known; use 'tensor', 'array', 'pictures', 'rows'"
    ):
        wrap(brightness, takes="photo")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"takes='array' is for black boxes; TinyCNN is a module"):
        wrap(TinyCNN(), takes="array")
    with pytest.raises(
        ModelError, match=r"1 or 3 channels in \[0, 1\], x has 3 from -2 to 1; give preprocess="
    ):
        wrap(brightness, takes="pictures")(torch.tensor([-2.0, 1.0]).expand(1, 3, 4, 2))
    with pytest.raises(ModelError, match=r"x has 4 from 0 to 0"):
        wrap(brightness, takes="pictures")(torch.zeros(1, 4, 2, 2))
    for nothing, kind in (
        ({}, "a dict"),
        (None, "a NoneType"),
        (3, "a int"),
        (TinyCNN, "the class TinyCNN"),
    ):
        with pytest.raises(ArgumentTypeError, match=rf"model is {kind}; give a torch\.nn\.Module"):
            wrap(nothing)  # type: ignore[arg-type]


def test_wrapping() -> None:
    model = wrap(brightness, labels=["all", "left"], takes="array")
    assert isinstance(model.module, BlackBox)
    assert (model.name, model.labels, model.device.type) == ("brightness", ("all", "left"), "cpu")
    assert wrap(brightness, name="lamp").name == "lamp"
    assert isinstance(unwrap(brightness), BlackBox)
    assert unwrap(model.module) is model.module
    assert isinstance(wrap(TinyCNN()).module, TinyCNN)
    x = pictures(2, 8)
    with Trace(
        model.module, x, layers=[], grad=False
    ) as trace:  # the shared pass reads predictions like this
        np.testing.assert_allclose(trace.output, brightness(x.numpy()), rtol=1e-6)
        np.testing.assert_allclose(trace.scores(1), brightness(x.numpy())[:, 1], rtol=1e-6)


NEEDY = {
    m.name: m
    for m in (*METHODS.values(), ablation_cam, score_cam)
    if m.family != "perturbation" or m.at == "layer"
}


@pytest.mark.parametrize("name", NEEDY)
def test_methods_that_need_gradients_or_layers_say_so(name: str) -> None:
    with pytest.raises(
        ModelError,
        match=r"needs gradients or layers, and a black box \(brightness\) has neither; use",
    ):
        NEEDY[name](brightness, pictures(1), 0)


def test_methods_that_mask_take_a_function() -> None:
    """The left half is all that counts, and the window covers it or does not."""

    def left(x: Tensor) -> Tensor:
        return x[..., :8].sum((1, 2, 3))

    x = torch.ones(2, 3, 16, 16)
    expected = torch.zeros(2, 16, 16)
    expected[..., :8] = 3 * 64
    options = {"window": 8, "stride": 8}
    torch.testing.assert_close(occlusion(left, x, 0, **options), expected)
    torch.testing.assert_close(occlusion(lambda a: left(a).numpy(), x, 0, **options), expected)
    told = seewhy.wrap(left, gives="score")
    found = seewhy.explain(
        told, x, methods=[occlusion], targets=[0], options={"occlusion": options}
    )
    torch.testing.assert_close(found[0].map, expected)
    assert found.model == "left"


def test_layers_of_a_black_box() -> None:
    with pytest.raises(ModelError, match="use rise, lime or occlusion"):
        seewhy.list_layers(brightness, pictures(1))
    with pytest.raises(ModelError, match="use rise, lime or occlusion"):
        seewhy.explain(brightness, pictures(1))


def test_a_scikit_learn_pipeline_on_features() -> None:
    pipeline_of = pytest.importorskip("sklearn.pipeline").make_pipeline
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)  # (1797, 1, 8, 8)
    features, labels = images.flatten(1).numpy()[:500], digits.target[:500]
    pipeline = pipeline_of(StandardScaler(), LogisticRegression(max_iter=200)).fit(features, labels)
    model = wrap(pipeline)
    torch.testing.assert_close(
        model(images[:5]), torch.tensor(pipeline.predict_proba(features[:5])).float()
    )
    assert model.name == "Pipeline"
    margins = LinearSVC().fit(features, labels)
    torch.testing.assert_close(
        wrap(margins)(images[:5]), torch.tensor(margins.decision_function(features[:5])).float()
    )
    numbers = Ridge().fit(features, labels)
    torch.testing.assert_close(
        wrap(numbers)(images[:5])[:, 0], torch.tensor(numbers.predict(features[:5])).float()
    )


def test_volumes_for_what_takes_rows_or_pictures() -> None:
    x = torch.rand(2, 3, 4, 5, 6)
    rows = BlackBox(lambda given: given, takes="rows")
    assert torch.equal(rows(x), x.permute(0, 2, 3, 4, 1).flatten(1))
    with pytest.raises(
        ModelError, match=r"is for pictures, x has shape \(2, 3, 4, 5, 6\); give takes='array'"
    ):
        BlackBox(brightness, takes="pictures")(x)


class Session:
    """What of an ONNX Runtime session is used, with a graph for so many pictures."""

    def __init__(self, pictures: int | str) -> None:
        self.shape, self.sizes = [pictures, 3, 8, 8], list[int]()

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="x", shape=self.shape)]

    def get_outputs(self) -> list[Any]:
        return [
            SimpleNamespace(name="y", type="tensor(float)"),
            SimpleNamespace(name="of_x", type="tensor(int64)"),
        ]

    def run(self, names: Any, given: dict[str, Any]) -> list[Any]:
        self.sizes.append(len(given["x"]))
        assert names == ["y"]
        return [brightness(given["x"])]


@pytest.mark.parametrize(
    ("fixed", "sizes"), [("batch", [5]), (1, [1] * 5), (2, [2, 2, 2]), (8, [8])]
)
def test_sessions(fixed: int | str, sizes: list[int]) -> None:
    session, x = Session(fixed), pictures(5, 8)
    np.testing.assert_allclose(wrap(session)(x), brightness(x.numpy()), rtol=1e-6)
    assert session.sizes == sizes


def test_onnx_runtime() -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    conv, fc = randomised(nn.Conv2d(3, 4, 3)), randomised(nn.Linear(4, 5))
    arrays = {"w": conv.weight, "b": conv.bias, "v": fc.weight, "c": fc.bias}
    nodes = [
        ("Conv", ["x", "w", "b"], "a"),
        ("Relu", ["a"], "r"),
        ("GlobalAveragePool", ["r"], "p"),
    ]
    made = [
        onnx.helper.make_node(kind, given, [out])
        for kind, given, out in [*nodes, ("Flatten", ["p"], "f")]
    ]
    made.append(onnx.helper.make_node("Gemm", ["f", "v", "c"], ["y"], transB=1))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        made,
        "net",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", kind, ["n", 5])],
        [
            onnx.numpy_helper.from_array(value.detach().numpy(), name)
            for name, value in arrays.items()
        ],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    model, x = wrap(runtime.InferenceSession(proto.SerializeToString())), pictures(3, 8)
    with torch.no_grad():
        expected = fc(conv(x).relu().mean((2, 3)))
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
