"""Label spaces: names and colours of the classes, and what is said where two differ."""

import pytest

from robustseg.core.errors import LabelSpaceMismatch, RobustsegError
from robustseg.core.labels import LabelSpace

SPACE = LabelSpace(("road", "car"), ((1, 2, 3), (4, 5, 6)))


def test_label_spaces_name_where_they_part() -> None:
    other = LabelSpace(("road", "bus"), ((1, 2, 3), (4, 5, 6)))
    SPACE.require_same(SPACE, mine="a", theirs="b")
    with pytest.raises(LabelSpaceMismatch, match="class 1: 'car' against 'bus'"):
        SPACE.require_same(other, mine="the network", theirs="the data")
    with pytest.raises(RobustsegError, match="one colour a class"):
        LabelSpace(("road",), ())
    for names in (("road", "road"), ("road", " ")):
        with pytest.raises(RobustsegError, match="expected a name of its own for each class, got"):
            LabelSpace(names, SPACE.palette)
