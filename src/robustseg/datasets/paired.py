"""Images with index masks, each in a file of its own: what the data sets of files share."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from robustseg.core.provenance import sha256
from robustseg.core.types import Dataset, Sample
from robustseg.datasets.files import check_pair, read_image, read_labels, train_ids_of


class Paired(Dataset):
    """Images with masks of train ids. A subclass sets `spec`, `label_space`, `ids` and `paths`.

    Attributes:
        paths: (image, mask) of each id.
        void: values of the masks that count for nothing.
    """

    paths: Sequence[tuple[Path, Path]]
    void: tuple[int, ...] = (255,)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.paths[index]
        image = read_image(image_path)
        return Sample(image, self.read_mask(mask_path, image.shape[-2:]), self.ids[index])

    def read_mask(self, path: Path, size: Sequence[int]) -> Tensor:
        """Labels `[h, w]` of a mask, for an image of (height, width)."""
        return read_labels(path, train_ids_of(len(self.label_space), void=self.void), size)

    def fingerprint(self, index: int) -> str:
        """Digests of the files of the image and the mask.

        Whoever takes the fingerprints of all images before a run also learns before it whether their headers fit.

        Raises:
            RobustsegError: the headers say that the pair cannot be read. ShapeError: image and mask differ in size.
        """
        check_pair(*self.paths[index])
        return "".join(map(sha256, self.paths[index]))
