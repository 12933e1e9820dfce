"""Networks that deceive are flagged by every run, honest ones that look like them are not, and none is left changed."""

import copy
from functools import cache

import pytest
import torch

from deceptive import DECEPTIVE, HONEST, SIBLINGS, Deceptive
from robustseg import api
from robustseg.core.errors import RobustsegError
from robustseg.core.types import Batch, Dataset, Network
from robustseg.datasets import Resized
from robustseg.evaluation import Conditions, evaluate, plan
from robustseg.evaluation.flags import are_probabilities, doubts
from robustseg.evaluation.probes import inner, look, relative_change
from robustseg.results import metrics
from robustseg.results.summary import raised, unpredicted

FLAGGED = {
    "probabilities as output": {"probabilities"},
    "sigmoids as output": {"probabilities"},
    "softmax times 10": {"probabilities"},
    "dropout left on": {"random_output"},
    "noise added to the input": {"random_output"},
    "logits times 1,000": {"saturated"},
    "rounded input": {"zero_gradients"},
    "rounding with a fake gradient": {"wrong_gradient"},
    "gradient replaced by noise": {"wrong_gradient"},
    "another gradient when one is requested": {"wrong_gradient"},
    "noise seeded by the input": {"wrong_gradient"},
    "memory of images seen before": {"random_output"},
    "batch norm in batch mode": {"batch_dependent"},
    "centring on the batch mean": {"batch_dependent"},
    "NaN on some images": {"not_finite"},
    "sigmoids times 10": {"probabilities"},
    "smoothed probabilities": {"probabilities"},
    "one hot": {"probabilities", "few_values", "zero_gradients"},
    "signs": {"few_values", "zero_gradients"},
    "quantised logits": {"few_values", "zero_gradients"},
    "quantised logits with a fake gradient": {"few_values"},
    "fine rounding with a fake gradient": {"wrong_gradient"},
    "gradient times 0.001": {"wrong_gradient"},
    "gradient turned round": {"wrong_gradient"},
    "gradient clipped": {"wrong_gradient"},
    "gradient of a third left out": {"zero_gradients"},
    "gradient of the mirror image": {"wrong_gradient"},
    "gradient NaN": {"wrong_gradient"},
    "no gradient": {"zero_gradients"},
    "gradient of another layer": {"wrong_gradient"},
    "another answer when a gradient is requested": {"random_output"},
    "another answer in inference mode": {"batch_dependent"},
    "temperature by batch size": {"batch_dependent"},
    "one image alone": {"batch_dependent"},
    "centring on the first image": {"batch_dependent"},
    "every second call": {"random_output"},
    "after the probes": {"random_output"},
    "moving mean in a buffer": {"random_output"},
    "memory of near images": {"zero_gradients"},
    "infinity on some images": {"not_finite"},
    "NaN at one pixel": {"not_finite"},
}
"""What each must raise; it may raise more."""


@cache
def streets() -> Dataset:
    return api.data("streets(scenes=3, frames=1, size='32x64')")


@cache
def honest() -> Network:
    return api.network("zoo:erfnet-streets")


@pytest.mark.parametrize("name", [*DECEPTIVE, *SIBLINGS])
def test_a_network_that_deceives_is_flagged(name: str) -> None:
    torch.manual_seed(0)
    network = Deceptive(honest(), name, {**DECEPTIVE, **SIBLINGS}[name])
    found = set(raised(evaluate(network, streets())))
    assert FLAGGED[name] <= found, found


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_like_them_is_not_flagged(name: str) -> None:
    assert raised(evaluate(Deceptive(honest(), name, HONEST[name]), streets())) == []


def test_flags_are_those_of_a_cut_run_and_of_any_batch_size(tmp_path) -> None:
    network = Deceptive(honest(), "thousandfold", DECEPTIVE["logits times 1,000"])
    whole = evaluate(network, streets())

    def cut(progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(network, streets(), folder=tmp_path, on_batch=cut, conditions=Conditions(batch_size=1))
    assert evaluate(network, streets(), folder=tmp_path, conditions=Conditions(batch_size=1)).flags == whole.flags


def test_later_images_are_probed_too() -> None:
    first = inner(Batch.of([streets()[0]]))

    def honest_on_the_first(n: Deceptive, x: torch.Tensor) -> torch.Tensor:
        return n.inner(x) if (x[:1] - first).abs().max() < 0.1 else 10 * n.inner(x).softmax(1)

    network = Deceptive(honest(), "later", honest_on_the_first)
    assert not are_probabilities(look(network, Batch.of([streets()[0]])).logits)
    assert "probabilities" in raised(evaluate(network, streets()))


def test_nan_counts_as_wrong_and_nothing_is_relative_to_it() -> None:
    network = Deceptive(honest(), "nan", lambda n, x: n.inner(x).index_fill(-1, torch.arange(8), torch.nan))
    record, clean = evaluate(network, streets()), evaluate(honest(), streets())
    assert record.flags["not_finite"] == unpredicted(record) == 1
    assert record.scores["unpredicted"] == [8 / 64] * 3
    assert int(record.counts.confusion[:, -1].sum()) == 3 * 32 * 8 - sum(
        int((streets()[i].labels[:, :8] == 255).sum()) for i in range(3)
    )
    for i in range(3):
        own = streets()[i].labels[:, 8:]
        guess = honest().eval().predict(streets()[i].image[None])[:, :, 8:]
        alone = metrics.count(own[None].numpy(), guess.numpy(), ["a"], 11)
        assert record.counts.tp[i].tolist() == alone.tp[0].tolist()
        assert (record.counts.tp[i] + record.counts.fn[i]).tolist() == (
            clean.counts.tp[i] + clean.counts.fn[i]
        ).tolist()


def test_a_constant_in_all_logits_hides_no_change() -> None:
    logits = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert relative_change(logits + 1e4, logits + 1e4) == 0
    assert relative_change(logits + 1e4, 1.1 * logits + 1e4) == pytest.approx(0.1, rel=0.2)


def test_a_network_that_takes_one_image_at_a_time_is_not_asked_for_two() -> None:
    def alone(n: Deceptive, x: torch.Tensor) -> torch.Tensor:
        return n.inner(x.view(1, 3, 32, 64))

    record = evaluate(Deceptive(honest(), "alone", alone), streets(), conditions=Conditions(batch_size=1))
    assert record.flags["batch_dependent"] is None
    assert raised(record) == []


def test_what_a_network_keeps_from_its_first_pass_serves_gradients() -> None:
    def keeps(n: Deceptive, x: torch.Tensor) -> torch.Tensor:
        return n.inner(x) * n.memory.setdefault("scale", torch.full((1, 11, 1, 1), 0.5) * 2)

    for code in ((), ("deceptive",)):  # with code of a user, one pass is made before everything else
        network = Deceptive(honest(), "keeps", keeps)
        network.code = code
        assert raised(evaluate(network, streets(), api.perturbation("fgsm(budget='linf:1/255')"))) == []


def test_no_run_leaves_a_buffer_changed() -> None:
    network = Deceptive(copy.deepcopy(honest()), "moves", SIBLINGS["moving mean in a buffer"])
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def unchanged() -> bool:
        return all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def fail(progress) -> None:
        assert not unchanged()
        raise RobustsegError("in the middle")

    evaluate(network, streets())
    assert unchanged()
    plan([network], streets())
    assert unchanged()
    with pytest.raises(RobustsegError, match="in the middle"):
        evaluate(network, streets(), on_batch=fail)
    assert unchanged()
    network.code = ("deceptive",)  # then a pass is made before the run
    evaluate(network, streets())
    assert unchanged()


SEGFORMER = '{"model_type":"segformer","num_labels":11,"depths":[1,1,1,1],"hidden_sizes":[16,16,16,16],"decoder_hidden_size":32,"num_attention_heads":[1,1,2,2]}'
UPERNET = (
    '{"model_type":"upernet","num_labels":11,"hidden_size":32,"use_auxiliary_head":false,"backbone_config":{"model_type":'
    '"convnext","depths":[1,1,1,1],"hidden_sizes":[16,16,16,16],"out_features":["stage1","stage2","stage3","stage4"]}}'
)
ORDINARY = [
    *(f"zoo:{name}" for name in ("erfnet-streets", "erfnet-streets-at", "erfnet-streets-at2", "triplet-streets")),
    *(f"smp('{name}', classes=11)" for name in ("Unet", "FPN")),
    "smp('DeepLabV3Plus', encoder='mobilenet_v2', classes=11)",
    *(f"torchvision('{name}', classes=11)" for name in ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")),
    f"transformers(config='{SEGFORMER}')",
    f"transformers(config='{UPERNET}')",
    *("enet(classes=11)", "segnet(classes=11)"),
]


@pytest.mark.parametrize("spec", ORDINARY)
def test_an_ordinary_network_is_not_flagged(spec: str) -> None:
    torch.manual_seed(0)
    network = api.network(spec)
    network.label_space = streets().label_space
    assert raised(evaluate(network, api.data("streets(scenes=2, frames=1, size='64x96')"))) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["erfnet-camvid", "erfnet-camvid-at", "erfnet-camvid-at50", "erfnet-half-camvid", "deeplabv3plus-camvid"]
)
def test_a_network_of_the_zoo_is_not_flagged(name: str, shared_data) -> None:
    frames = Resized(api.data(f"camvid(root={str(shared_data / 'camvid')!r}, split='test')"), (180, 240))
    for start in (0, 171):
        some = [look(api.network(f"zoo:{name}"), Batch.of([frames[start + n]])) for n in (0, 30, 60)]
        found = doubts(some)
        assert not [flag for flag, value in found.items() if value], found
