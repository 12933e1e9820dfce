"""The errors that a user can act on: each text says what was expected, what came, and what to try."""


class RobustsegError(ValueError):
    """Something the user can mend. The text says what was expected, what came, and what to try."""


class ShapeError(RobustsegError):
    """Tensors whose shapes do not fit each other."""


class LabelSpaceMismatch(RobustsegError):
    """A network and a data set that do not speak of the same classes."""


class DatasetNotFound(RobustsegError):
    """A data set that is not there or not complete; the text shows the expected tree."""


class SpecError(RobustsegError):
    """A spec that cannot be read or names nothing known; the text shows near matches."""


class MissingExtra(RobustsegError):
    """An optional package that is not installed; the text gives the install line."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"expected the package '{package}', got none; try: pip install 'robustseg[{extra}]'")
