"""List the known image sources: where their files may be, their classes, their place on the Hub. No heavy imports."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lifelong.data.split_names import SplitName
from lifelong.errors import LifelongError, near_miss

RESEARCH = "research data set without a stated licence"


@dataclass(frozen=True)
class Hub:
    """Where to find a source on the Hugging Face Hub.

    Attributes:
        id: the data set's id.
        config: its configuration; None for the only one.
        splits: for each file that is written, the Hub's splits that form it (several are concatenated).
    """

    id: str
    config: str | None = None
    splits: Mapping[SplitName, tuple[str, ...]] = field(default_factory=lambda: {"train": ("train",), "test": ("test",)})


SPLITS_AS_STORED: Mapping[SplitName, tuple[SplitName, ...]] = {"train": ("train",), "valid": ("valid",), "test": ("test",)}
"""The splits as the files divide them."""


@dataclass(frozen=True)
class KnownSource:
    """A named image source.

    Attributes:
        name: its name in streams.
        text: one line about it.
        folders: names its folder may have inside the data folder.
        licence: the terms under which it is published.
        mirror: whether a horizontal flip preserves the class.
        hub: where to download it; None for the embedded one.
        classes: class names in label order; empty: those that the files name.
        pools: for each split of the source the files that form it, by how their names begin, concatenated.
        parts: how many classes train, valid and test hold in copies that divide the classes among them, for few-shot learning; of such
            a copy all files make train. Empty: there are no such copies.
        squeeze: whether to squeeze an oblong image into a square, instead of cropping it.
        image_columns, label_columns: the columns that may hold images and labels; the first one found is read.
    """

    name: str
    text: str
    folders: tuple[str, ...]
    licence: str
    mirror: bool
    hub: Hub | None
    classes: tuple[str, ...] = ()
    pools: Mapping[SplitName, tuple[SplitName, ...]] = field(default_factory=lambda: SPLITS_AS_STORED)
    image_columns: tuple[str, ...] = ("image", "img")
    label_columns: tuple[str, ...] = ("label",)
    parts: tuple[int, ...] = ()
    squeeze: bool = False


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


DIGITS = tuple("0123456789")

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

CIFAR100 = _words(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
    cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
    house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
    orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose
    sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
)

CIFAR100_COARSE = _words(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture insects
    large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
    non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"""
)

DTD = _words(
    """banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked freckled frilly
    gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley perforated pitted pleated
    polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified striped studded swirly veined waffled woven
    wrinkled zigzagged"""
)

MINI_IMAGENET = _words(
    """n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367 n02089867 n02091831 n02101006 n02105505
    n02108089 n02108551 n02108915 n02111277 n02113712 n02120079 n02165456 n02457408 n02606052 n02687172 n02747177 n02795169
    n02823428 n02966193 n03017168 n03047690 n03062245 n03207743 n03220513 n03337140 n03347037 n03400231 n03476684 n03527444
    n03676483 n03838899 n03854065 n03888605 n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548
    n04296562 n04389033 n04435653 n04443257 n04509417 n04515003 n04596742 n04604644 n04612504 n06794110 n07584110 n07697537
    n07747607 n09246464 n13054560 n13133613 n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792
    n03075370 n03417042 n03535780 n03584254 n03770439 n03773504 n03980874 n09256479 n01930112 n01981276 n02099601 n02110063
    n02110341 n02116738 n02129165 n02219486 n02443484 n02871525 n03127925 n03146219 n03272010 n03544143 n03775546 n04146614
    n04149813 n04418357 n04522168 n07613480"""
)
"""ImageNet's numbers of the 100 classes: the 64, 16 and 20 of Ravi and Larochelle's train, validation and test parts, each sorted."""

_THREE: Mapping[SplitName, tuple[str, ...]] = {"train": ("train",), "valid": ("validation",), "test": ("test",)}

_CIFAR100_HUB = Hub("uoft-cs/cifar100")

_ENTRIES = (
    KnownSource("digits", "1,797 handwritten digits, 8x8 grey, embedded (UCI)", (), "CC BY 4.0 (UCI)", False, None, DIGITS),
    KnownSource("mnist", "handwritten digits, 28x28 grey", ("mnist",), "permissive (MNIST)", False, Hub("ylecun/mnist", "mnist"), DIGITS),
    KnownSource(
        "fashion_mnist",
        "pieces of clothing, 28x28 grey",
        ("fashion_mnist", "fashion-mnist"),
        "MIT",
        True,
        Hub("zalando-datasets/fashion_mnist"),
        FASHION,
    ),
    KnownSource("cifar10", "10 kinds of things, 32x32", ("cifar10",), RESEARCH, True, Hub("uoft-cs/cifar10", "plain_text"), CIFAR10),
    KnownSource(
        "cifar100",
        "100 kinds of things, 32x32 (fine labels)",
        ("cifar100",),
        RESEARCH,
        True,
        _CIFAR100_HUB,
        CIFAR100,
        label_columns=("fine_label", "label"),
    ),
    KnownSource(
        "cifar100-coarse",
        "the images of cifar100 under their 20 superclasses",
        ("cifar100",),
        RESEARCH,
        True,
        _CIFAR100_HUB,
        CIFAR100_COARSE,
        label_columns=("coarse_label",),
    ),
    KnownSource("svhn", "house numbers, 32x32", ("svhn",), RESEARCH, False, Hub("ufldl-stanford/svhn", "cropped_digits"), DIGITS),
    KnownSource(
        "dtd",
        "47 kinds of texture (the official split 1; its training and validation images make train)",
        ("dtd",),
        RESEARCH,
        True,
        Hub("mcimpoi/dtd_split_1", splits=_THREE),
        DTD,
        pools={"train": ("train", "valid"), "test": ("test",)},
    ),
    KnownSource(
        "mini_imagenet",
        "100 classes of ImageNet, 600 images each; all in train where the files divide the classes 64/16/20",
        ("mini_imagenet", "mini-imagenet"),
        RESEARCH,
        True,
        Hub("GATE-engine/mini_imagenet", splits=_THREE),
        MINI_IMAGENET,
        parts=(64, 16, 20),
    ),
    KnownSource(
        "mini_imagenet-timm",
        "the classes of mini_imagenet, 600 other images each (train and validation of timm/mini-imagenet, in one)",
        ("mini_imagenet-timm", "mini_imagenet_timm"),
        RESEARCH,
        True,
        Hub("timm/mini-imagenet", splits={"train": ("train",), "valid": ("validation",)}),
        MINI_IMAGENET,
        pools={"train": ("train", "valid")},  # its `test` comes from another part of ImageNet
    ),
    KnownSource(
        "celeba",
        "faces, smiling or not (all three parts in one, in the order of their file numbers)",
        ("celeba",),
        RESEARCH,
        True,
        Hub("flwrlabs/celeba", "img_align+identity+attr", {"train": ("train",), "valid": ("valid",), "test": ("test",)}),
        ("not smiling", "smiling"),
        pools={"train": ("train", "valid", "test")},
        label_columns=("Smiling", "label"),
        squeeze=True,
    ),
)

KNOWN_SOURCES = {entry.name: entry for entry in _ENTRIES}

ADDRESSES = ("parquet:DIR", "csv:FILE", "folder:DIR", "hub:ID")
"""What else a source may be: a user's own images, or any data set of the Hub."""


def known_source(name: str) -> KnownSource:
    """Look up a source by its name.

    Raises:
        LifelongError: there is no source of that name.
    """
    if name not in KNOWN_SOURCES:
        raise LifelongError(f"unknown source '{name}'{near_miss(name, [*KNOWN_SOURCES, *ADDRESSES])}")
    return KNOWN_SOURCES[name]
