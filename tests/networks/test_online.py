"""Without a connection a download is one sentence at once: nothing is tried twice, and what is cached is used."""

import socket
import time

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.registry import build
from robustseg.networks import online


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """The addresses that are asked for; there is no connection, no cache, and nobody waits."""
    asked = []

    def asking(host, *_, **__):
        asked.append(host)
        raise socket.gaierror("no address")

    monkeypatch.setattr(socket, "getaddrinfo", asking)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s for another try"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return asked


@pytest.mark.filterwarnings("ignore:For 'tu-'")
@pytest.mark.parametrize(
    ("spec", "package", "most"),
    [
        ("transformers('nobody-here/nothing')", "transformers", 1),
        ("smp('Unet', encoder='resnet18', encoder_weights='imagenet')", "segmentation_models_pytorch", 1),
        ("smp('Unet', encoder='tu-resnet10t', encoder_weights='imagenet')", "timm", 1),
        ("torchvision('lraspp_mobilenet_v3_large', weights='DEFAULT')", "torchvision", 2),
        ("pspnet(encoder='resnet18', encoder_weights='imagenet')", "torchvision", 2),
        ("multitask(encoder='resnet18', encoder_weights='imagenet')", "torchvision", 2),
    ],
)
def test_a_spec_that_needs_a_download_fails_at_once_in_one_sentence(spec, package, most, tried):
    pytest.importorskip(package)
    with pytest.raises(
        RobustsegError, match=r"expected .* from a cache or https://.*, got no connection, and"
    ) as caught:
        build("network", spec)
    assert "\n" not in str(caught.value)
    assert 1 <= len(tried) <= most


def test_errors_that_are_no_downloads_pass(monkeypatch):
    monkeypatch.setattr(online, "reachable", lambda address: True)
    with pytest.raises(KeyError), online.online("x", online.TORCH, "y"):
        raise KeyError("bug")


def test_the_environment_says_offline(monkeypatch, tried):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not online.reachable(online.HUB)
    assert tried == []
