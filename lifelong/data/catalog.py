"""What is known of each named image source: where its files may lie, its classes, its place on the hub. No heavy imports."""

from dataclasses import dataclass

from lifelong.errors import LifelongError, near_miss

RESEARCH = "research data set without a stated licence"


@dataclass(frozen=True)
class Hub:
    """Where a source is found on the Hugging Face hub.

    Attributes:
        id: the data set's id.
        config: its configuration; None for the only one.
        train, test: the hub's splits that make ours (several are put one after the other).
    """

    id: str
    config: str | None = None
    train: tuple[str, ...] = ("train",)
    test: tuple[str, ...] = ("test",)


@dataclass(frozen=True)
class Entry:
    """A named image source.

    Attributes:
        name: what a stream calls it.
        text: one line of what it holds.
        folders: names its folder may have inside the data folder.
        licence: under which terms it is given.
        mirror: whether a left-right mirror image is still of the same class and kind.
        hub: where to download it; None for the embedded one.
        classes: class names in label order; empty: those that the files name.
        image_columns, label_columns: the columns that may hold images and labels, first found first.
    """

    name: str
    text: str
    folders: tuple[str, ...]
    licence: str
    mirror: bool
    hub: Hub | None
    classes: tuple[str, ...] = ()
    image_columns: tuple[str, ...] = ("image", "img")
    label_columns: tuple[str, ...] = ("label",)


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

_CIFAR100_HUB = Hub("uoft-cs/cifar100")

_ENTRIES = (
    Entry("digits", "1,797 handwritten digits, 8x8 grey, embedded (scikit-learn)", (), "CC BY 4.0 (UCI)", False, None, DIGITS),
    Entry("mnist", "handwritten digits, 28x28 grey", ("mnist",), "permissive (MNIST)", False, Hub("ylecun/mnist", "mnist"), DIGITS),
    Entry(
        "fashion_mnist",
        "pieces of clothing, 28x28 grey",
        ("fashion_mnist", "fashion-mnist"),
        "MIT",
        True,
        Hub("zalando-datasets/fashion_mnist"),
        FASHION,
    ),
    Entry("cifar10", "10 kinds of things, 32x32", ("cifar10",), RESEARCH, True, Hub("uoft-cs/cifar10", "plain_text"), CIFAR10),
    Entry(
        "cifar100",
        "100 kinds of things, 32x32 (fine labels)",
        ("cifar100",),
        RESEARCH,
        True,
        _CIFAR100_HUB,
        CIFAR100,
        label_columns=("fine_label", "label"),
    ),
    Entry(
        "cifar100-coarse",
        "the images of cifar100 under their 20 superclasses",
        ("cifar100",),
        RESEARCH,
        True,
        _CIFAR100_HUB,
        CIFAR100_COARSE,
        label_columns=("coarse_label",),
    ),
    Entry("svhn", "house numbers, 32x32", ("svhn",), RESEARCH, False, Hub("ufldl-stanford/svhn", "cropped_digits"), DIGITS),
    Entry("dtd", "47 kinds of texture", ("dtd",), RESEARCH, True, Hub("mcimpoi/dtd_split_1", train=("train", "validation")), DTD),
    Entry(
        "mini_imagenet",
        "100 classes of ImageNet",
        ("mini_imagenet", "mini-imagenet"),
        RESEARCH,
        True,
        Hub("timm/mini-imagenet", test=("validation",)),  # its own `test` comes from another part of ImageNet
    ),
    Entry(
        "celeba",
        "faces, smiling or not",
        ("celeba",),
        RESEARCH,
        True,
        Hub("flwrlabs/celeba", "img_align+identity+attr"),
        ("not smiling", "smiling"),
        label_columns=("Smiling", "label"),
    ),
)

CATALOG = {entry.name: entry for entry in _ENTRIES}

PARQUET = "parquet:"
"""How the name of a source begins that is a folder of parquet files."""


def entry_of(name: str) -> Entry:
    """What is known of a named source.

    Raises:
        LifelongError: there is no source of that name.
    """
    if name not in CATALOG:
        raise LifelongError(f"unknown source '{name}'{near_miss(name, [*CATALOG, PARQUET + 'DIR'])}")
    return CATALOG[name]
