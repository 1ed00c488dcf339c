import subprocess
import sys

import pytest

from lifelong.errors import LifelongError
from lifelong.networks.genotype import DARTS_V1, DARTS_V2, EDGES, OPERATIONS, Genotype, genotype


def test_operations_stand_in_the_authors_order():
    assert OPERATIONS == ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
    assert len(EDGES) == 14
    assert EDGES[:5] == ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2))


@pytest.mark.parametrize("cell", [DARTS_V1, DARTS_V2])
def test_print_and_paste(cell):
    assert Genotype.parse(str(cell)) == cell
    assert eval(repr(cell), {"Genotype": Genotype}) == cell
    assert genotype(f"  {cell!r}\n") == cell
    assert hash(Genotype.parse(str(cell))) == hash(cell)


def test_names():
    assert genotype("DARTS_V1") is DARTS_V1
    assert genotype("DARTS_V2") is DARTS_V2
    with pytest.raises(LifelongError, match="unknown cell 'darts_v1'; known: DARTS_V1, DARTS_V2; or paste"):
        genotype("darts_v1")


def test_printed_form_is_pinned():
    assert str(DARTS_V1).startswith("Genotype(normal=((('sep_conv_3x3', 1), ('sep_conv_3x3', 0)), (('skip_connect', 0), ")


ONE = "(('skip_connect', 0), ('skip_connect', 1))"
GOOD = f"({ONE}, {ONE}, {ONE}, {ONE})"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Genotype(", "not a genotype"),
        ("__import__('os').getcwd()", "not a genotype"),
        ("Genotype(normal=__import__('os').getcwd(), reduce=())", "not a genotype"),
        (f"Genotype(normal={GOOD})", "not a genotype"),
        (f"Genotype(normal={GOOD}, reduce={GOOD}, more=1)", "not a genotype"),
        (f"Genotype(normal=({ONE}, {ONE}, {ONE}), reduce={GOOD})", "normal cell of a genotype: 4 nodes"),
        (f"Genotype(normal={GOOD}, reduce={GOOD.replace('skip_connect', 'skip_conect', 1)})", "did you mean 'skip_connect'"),
        (f"Genotype(normal={GOOD.replace('skip_connect', 'none', 1)}, reduce={GOOD})", "unknown operation 'none'"),
        (f"Genotype(normal={GOOD.replace('1))', '2))', 1)}, reduce={GOOD})", "the source must be a whole number from 0 to 1, got 2"),
        (f"Genotype(normal={GOOD.replace('1))', '0))', 1)}, reduce={GOOD})", "its two sources must differ"),
        (f"Genotype(normal={GOOD.replace('1))', 'True))', 1)}, reduce={GOOD})", "whole number"),
        (f"Genotype(normal=5, reduce={GOOD})", "4 nodes"),
        ("(" * 500 + ")" * 500, "not a genotype"),
    ],
)
def test_bad_text_is_one_clear_line(text, says):
    with pytest.raises(LifelongError, match=says.replace("(", r"\(")) as error:
        genotype(text)
    assert "\n" not in str(error.value)


def test_needs_no_torch():
    code = "import sys, lifelong.networks.genotype; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
