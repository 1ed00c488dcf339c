import pytest

from lifelong.data.address import meant_address, parse_address
from lifelong.data.sources import Sources
from lifelong.errors import LifelongError


@pytest.mark.parametrize(
    ("name", "kind", "where", "options"),
    [
        ("mnist", "named", "mnist", {}),
        ("mnist?flip=true", "named", "mnist", {"flip": "true"}),
        ("parquet:birds", "parquet", "birds", {}),
        ("folder:/home/me/my photos", "folder", "/home/me/my photos", {}),
        ("folder:a:b", "folder", "a:b", {}),
        ("csv:list.csv?image=file name&label=R&D&flip=false", "csv", "list.csv", {"image": "file name", "label": "R&D", "flip": "false"}),
        ("hub:me/birds?config=small&train=a+b&test=c", "hub", "me/birds", {"config": "small", "train": "a+b", "test": "c"}),
        ("folder:what?", "folder", "what?", {}),
        ("folder:what? now/so & so", "folder", "what? now/so & so", {}),
        ("folder:a?b=c?flip=true", "folder", "a?b=c", {"flip": "true"}),
        ("folder:50%/#1/<x>'\"", "folder", "50%/#1/<x>'\"", {}),
        ("csv:l.csv?label=is it?flip=so", "csv", "l.csv", {"label": "is it?flip=so"}),
    ],
)
def test_what_is_read(name, kind, where, options):
    address = parse_address(name)
    assert (address.name, address.kind, address.where, dict(address.options)) == (name, kind, where, options)


@pytest.mark.parametrize(
    ("name", "lasting"),
    [
        ("mnist", "mnist"),
        ("mnist?flip=true", "mnist?flip=true"),
        ("parquet:birds", "parquet:birds"),
        ("folder:/home/me/birds", "folder:birds"),
        ("folder:photos/birds/?flip=true", "folder:birds?flip=true"),
        ("csv:../lists/list.csv?label=kind", "csv:list.csv?label=kind"),
        ("hub:me/birds?config=small", "hub:me/birds?config=small"),
    ],
)
def test_what_stays_where_files_are_moved(name, lasting):
    assert parse_address(name).lasting == lasting


def test_what_options_say():
    address = parse_address("hub:me/birds?label=kind&train=a+b&valid=c&flip=true")
    assert address.parts() == {"train": ("a", "b"), "valid": ("c",)}
    assert address.flip is True
    assert address.column("label", ("label",)) == ("kind",)
    assert address.column("image", ("image", "img")) == ("image", "img")
    assert parse_address("folder:x?flip=false").flip is False
    assert parse_address("folder:x").flip is None
    assert parse_address("folder:x").parts() == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("foldr:birds", ["unknown kind 'foldr:'", "did you mean 'folder'?"]),
        ("C:\\photos", ["unknown kind 'C:'", "known: csv, folder, hub, parquet"]),
        ("folder:", ["nothing follows the colon", "folder:DIR"]),
        ("csv:?label=x", ["nothing follows the colon", "csv:FILE"]),
        ("parquet:birds?lable=kind", ["unknown option 'lable'", "did you mean 'label'?"]),
        ("parquet:birds?label=kind&imge=x", ["option 'imge'", "did you mean 'image'?"]),
        ("folder:birds?label=kind", ["option 'label'", "is not an option of folder:", "train, valid, test, flip"]),
        ("mnist?train=x", ["option 'train'", "is not an option of a known source", "flip"]),
        ("csv:l.csv?config=x", ["option 'config'", "is not an option of csv:"]),
        ("folder:x?flip=yes", ["option 'flip'", "'yes': expected true or false"]),
        ("folder:x?flip=true&flip=true", ["option 'flip'", "is given twice"]),
        ("parquet:x?label=", ["option 'label'", "is empty"]),
        ("parquet:x?train=a+", ["option 'train'", "is empty"]),
        ("parquet:x?test=a", ["names test but not train"]),
    ],
)
def test_what_is_refused(name, words):
    with pytest.raises(LifelongError) as caught:
        parse_address(name)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_path_is_answered_with_its_address(tmp_path):
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "stored" / "train").mkdir(parents=True)
    for file in ("list.csv", "photos.zip", "one.parquet", "stored/train/0.parquet"):
        (tmp_path / file).write_bytes(b"x")
    for name, meant in {
        "photos": "'photos' is a folder: write folder:photos",
        "photos?tasks=2": "write folder:photos?tasks=2",
        "stored": "write parquet:stored",
        "list.csv": "write csv:list.csv",
        "one.parquet": "write parquet:.?train=one.parquet",
        "photos.zip": "'photos.zip' is a file, and what is read are folders (folder:DIR)",
    }.items():
        assert meant in meant_address(name, (None, tmp_path / "nowhere", tmp_path))
        if "?" not in name:
            with pytest.raises(LifelongError, match="unknown source"):
                Sources(None, cache=tmp_path / "cache").open(name, tmp_path)
    assert meant_address("photo", (tmp_path,)) == ""
