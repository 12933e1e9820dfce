"""Attacks that vary another attack: they fix some of its arguments or change defaults, and inherit the rest."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robustseg.core.types import Images, Labels, Network

Arguments = Mapping[str, Any]
"""Arguments of an attack by name."""


def variant_of(
    base: Callable[..., Images], *, only: Sequence[str] | None = None, **fixed: Any
) -> Callable[[Callable[..., Arguments | None]], Callable[..., Images]]:
    """Decorator: the function below it becomes an attack that calls `base` with some arguments fixed.

    The attack has the signature of `base` without the fixed arguments. The function adds what else is different:

    * a parameter with a default replaces the parameter of `base`: its default, and its annotation;
    * a parameter without a default is an argument that the function reads;
    * what the function returns replaces arguments in the call of `base`.

    PGD that ends at its last iterate, takes 10 steps by default and chooses the objective by the goal:

        @attack("mine")
        @variant_of(pgd, keep="last", objective=...)
        def mine(goal: str, steps: int = 10) -> Arguments:
            '''PGD on the objective of my paper. Source: ...'''
            return {"objective": away if goal == "truth" else towards}

    Args:
        base: an attack `(network, images, labels, *, budget, ..., rng) -> images`.
        only: the arguments that remain; None is all that are not fixed. `network`, `images`, `labels` and `rng` remain
            in any case. What is neither fixed nor remains has the default of `base`.
        fixed: values of arguments of `base`; `...` stands for a value that the function returns.

    Raises:
        TypeError: a name is no argument of `base`.
    """
    inherited = inspect.signature(base)
    given = [p.name for p in inherited.parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "rng"]
    hidden = [name for name in given if name in fixed or not (only is None or name in only)]
    settled = {name: fixed.get(name, inherited.parameters[name].default) for name in hidden}

    def vary(function: Callable[..., Arguments | None]) -> Callable[..., Images]:
        own = inspect.signature(function).parameters
        for name in (*fixed, *(only or ()), *own):
            if name not in inherited.parameters:
                raise TypeError(
                    f"expected an argument of {base.__name__} for {function.__name__}, got '{name}'; try {', '.join(given)}"
                )
        parameters = [_replaced(p, own.get(name)) for name, p in inherited.parameters.items() if name not in hidden]
        signature = inherited.replace(parameters=parameters)

        @functools.wraps(function)
        def attack(network: Network, images: Images, labels: Labels, **named: Any) -> Images:
            try:
                bound = signature.bind(network, images, labels, **named)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            bound.apply_defaults()
            arguments = {**bound.arguments, **settled}
            computed = function(**{name: arguments[name] for name in own})
            return base(**{**arguments, **(computed or {})})

        attack.__signature__ = signature  # type: ignore[attr-defined]
        attack.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": inherited.return_annotation}
        return attack

    return vary


def _replaced(parameter: inspect.Parameter, own: inspect.Parameter | None) -> inspect.Parameter:
    if own is None or own.default is own.empty:
        return parameter
    return parameter.replace(default=own.default, annotation=own.annotation)
