"""The shape of a spec file: its sections, the blocks they make, and what is said when the shape is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from itopctl.config.reading import Document, read_text
from itopctl.config.sweep import MAX_SEEDS, SETTINGS, Block, SweepSpec, overlay, parse_sweep, settings_of
from itopctl.errors import UserError
from tests.config.build import complaint, spec_text


def parsed(text: str) -> SweepSpec:
    return parse_sweep(read_text(text, "spec.yaml"))


def said(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parsed(text)
    return str(caught.value)


def values(block: Block) -> dict[str, Any]:
    return {name: written.value for name, written in block.base.items()}


def axes(block: Block) -> list[list[dict[str, Any]]]:
    return [[{name: w.value for name, w in point.items()} for point in axis] for axis in block.axes]


def test_a_spec_of_a_base_alone_is_one_block_with_one_point() -> None:
    spec = parsed("name: one\nbase: {method: dense}\n")
    (block,) = spec.blocks
    assert (spec.name, spec.description, values(block), block.size) == ("one", "", {"method": "dense"}, 1)


def test_the_spec_keeps_its_text_as_it_was_written() -> None:
    text = "name: one # a comment\nbase: {method: dense}\n"
    assert parsed(text).text == text


def test_nested_and_dotted_settings_are_the_same() -> None:
    nested = parsed("name: a\nbase: {optimizer: {lr: 0.1, name: sgd}}\n").blocks[0]
    dotted = parsed("name: a\nbase: {optimizer.lr: 0.1, optimizer.name: sgd}\n").blocks[0]
    assert values(nested) == values(dotted) == {"optimizer.lr": 0.1, "optimizer.name": "sgd"}


def test_a_setting_given_nested_and_dotted_is_given_twice() -> None:
    message = said("name: a\nbase:\n  optimizer: {lr: 0.1}\n  optimizer.lr: 0.2\n")
    assert message == "spec.yaml:4: base.optimizer.lr: optimizer.lr is given twice, dotted and nested."


def test_a_grid_is_one_axis_a_setting_and_a_zip_is_one_axis_in_all() -> None:
    (block,) = parsed(
        "name: a\ngrid: {epochs: [1, 2], seed: 2}\nzip: {batch_size: [8, 9], optimizer.lr: [1, 2]}"
    ).blocks
    assert axes(block) == [
        [{"epochs": 1}, {"epochs": 2}],
        [{"seed": 0}, {"seed": 1}],
        [{"batch_size": 8, "optimizer.lr": 1}, {"batch_size": 9, "optimizer.lr": 2}],
    ]
    assert block.size == 8


def test_a_value_of_an_axis_may_be_a_whole_part() -> None:
    (block,) = parsed("name: a\ngrid: {optimizer: [{name: sgd, lr: 0.1}, {name: adam}]}").blocks
    assert axes(block) == [[{"optimizer.name": "sgd", "optimizer.lr": 0.1}, {"optimizer.name": "adam"}]]


def test_a_number_of_seeds_is_that_many_seeds_from_0() -> None:
    (block,) = parsed("name: a\ngrid: {seed: 5}").blocks
    assert axes(block) == [[{"seed": seed} for seed in range(5)]]


def test_a_number_of_seeds_in_base_is_that_one_seed() -> None:
    assert values(parsed("name: a\nbase: {seed: 5}").blocks[0]) == {"seed": 5}


@pytest.mark.parametrize("count", ["0", "-1", "1000000000000", str(MAX_SEEDS + 1)])
def test_a_number_of_seeds_that_cannot_be_meant_is_refused(count: str) -> None:
    message = said(f"name: a\ngrid:\n  seed: {count}\n")
    assert message == f"spec.yaml:3: grid.seed: found {count}; a number of seeds from 1 to 100,000 expected, or a list."


@pytest.mark.parametrize("value", ["true", "5.0", "five", "{a: 1}", "null"])
def test_seeds_are_a_number_or_a_list(value: str) -> None:
    assert said(f"name: a\ngrid:\n  seed: {value}\n").startswith("spec.yaml:3: grid.seed: a list of values expected")


def test_a_number_of_seeds_has_no_place_in_zip() -> None:
    assert said("name: a\nzip: {seed: 5}").startswith("spec.yaml:2: zip.seed: a list of values expected; found 5.")


def test_each_included_block_has_its_own_base_on_top_of_the_outer_one() -> None:
    text = "name: a\nbase: {epochs: 1, seed: 7}\ngrid: {sparsity: [0.5]}\ninclude: [{base: {epochs: 9}}, {base: {}}]"
    assert [values(block) for block in parsed(text).blocks] == [
        {"epochs": 1, "seed": 7},
        {"epochs": 9, "seed": 7},
        {"epochs": 1, "seed": 7},
    ]


def test_axes_and_exclusions_of_one_block_are_not_those_of_another() -> None:
    text = (
        "name: a\ngrid: {epochs: [1, 2]}\nexclude: [{epochs: 1}]\n"
        "include: [{grid: {seed: 2}}, {exclude: [{seed: 1}], grid: {seed: [1]}}]"
    )
    assert [(block.size, len(block.exclude)) for block in parsed(text).blocks] == [(2, 1), (2, 0), (1, 1)]


def test_a_base_without_axes_beside_included_blocks_is_no_run_of_its_own() -> None:
    assert len(parsed("name: a\nbase: {epochs: 1}\ninclude: [{grid: {seed: 2}}]").blocks) == 1


def test_an_included_block_may_use_sparsity_over_an_outer_density() -> None:
    block = parsed("name: a\nbase: {density: 0.1}\ninclude: [{base: {sparsity: 0.5}}]").blocks[0]
    assert values(block) == {"sparsity": 0.5}


@pytest.mark.parametrize(("under", "over"), [("sparsity", "density"), ("density", "sparsity"), ("density", "density")])
def test_sparsity_laid_over_density_replaces_it_and_the_other_way_round(under: str, over: str) -> None:
    document = Document("spec.yaml", "", None)
    one, two = (settings_of(document, (), {name: value}) for name, value in ((under, 0.1), (over, 0.2)))
    assert {name: written.value for name, written in overlay(one, two).items()} == {over: 0.2}


def test_slurm_options_are_read_and_default_to_nothing() -> None:
    slurm = parsed("name: a\nslurm: {partition: gpu, gpus_per_node: 'a100:2', timeout_min: 240}").slurm
    assert (slurm.partition, slurm.gpus_per_node, slurm.timeout_min, slurm.account) == ("gpu", "a100:2", 240, None)
    assert parsed("name: a\nslurm:\n").slurm == parsed("name: a\n").slurm


@pytest.mark.parametrize("name", ["a", "cifar100-itop", "A.b_c-9", "x" * 100])
def test_a_plain_word_is_a_name(name: str) -> None:
    assert parsed(f"name: {name}\n").name == name


@pytest.mark.parametrize(
    "name", ["''", "' a'", "a b", "../up", "-a", ".hidden", "a/b", '"a\\n"', "5", "null", "é", "x" * 101]
)
def test_a_name_that_could_not_be_a_file_name_is_refused(name: str) -> None:
    assert said(f"base: {{}}\nname: {name}\n").startswith("spec.yaml:2: name: a sweep needs a name of letters")


def test_a_spec_needs_a_name() -> None:
    assert said("base: {}\n").startswith("spec.yaml:1: a sweep needs a name")


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("[1]", "a list"), ("hello", "a text"), ("5", "a number"), ("true", "a truth")]
)
def test_a_spec_is_a_mapping(text: str, found: str) -> None:
    message = said(text)
    assert message.startswith("spec.yaml:1: a spec is a mapping" if text else "spec.yaml: a spec is a mapping")
    assert f"found {found}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ngird: {}\n", "spec.yaml:2: gird: unknown key 'gird'. Did you mean 'grid'? Allowed: name, "),
        ("name: a\nbase:\n  epoch: 1\n", "spec.yaml:3: base.epoch: unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("name: a\nbase: {optimizer: {lrr: 1}}\n",
         "spec.yaml:2: base.optimizer.lrr: unknown setting 'optimizer.lrr'. Did you mean 'optimizer.lr'?"),
        ("name: a\ngrid:\n  sparcity: [0.1]\n",
         "spec.yaml:3: grid.sparcity: unknown setting 'sparcity'. Did you mean 'sparsity'?"),
        ("name: a\nzip: {optimiser.lr: [1]}\n",
         "spec.yaml:2: zip.optimiser.lr: unknown setting 'optimiser.lr'. Did you mean 'optimizer.lr'?"),
        ("name: a\ngrid: {seed: 2}\nexclude:\n- {seed: 1}\n- {metod: x}\n",
         "spec.yaml:5: exclude[1].metod: unknown setting 'metod'. Did you mean 'method'?"),
        ("name: a\ninclude:\n- {base: {}}\n- {basis: {}}\n",
         "spec.yaml:4: include[1].basis: unknown key 'basis'. Did you mean 'base'? Allowed: base, grid, zip, exclude."),
        ("name: a\ninclude: [{name: b}]\n", "spec.yaml:2: include[0].name: unknown key 'name'."),
        ("name: a\nslurm: {partitoin: gpu}\n",
         "spec.yaml:2: slurm.partitoin: unknown key 'partitoin'. Did you mean 'partition'?"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_with_the_nearest_word(text: str, message: str) -> None:
    assert said(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: 5", "base: a mapping of settings expected; found number 5."),
        ("base: [a]", "base: a mapping of settings expected; found list ['a']."),
        ("base: {optimizer: sgd}",
         "base.optimizer: a mapping with name, lr, weight_decay, momentum, nesterov, betas, eps expected; "
         "found 'sgd'."),
        ("grid: [1]", "grid: a mapping from settings to lists of values expected; found [1]."),
        ("grid: {sparsity: 0.9}",
         "grid.sparsity: a list of values expected; found 0.9. For a single value write [0.9]."),
        ("grid: {optimizer: [sgd]}",
         "grid.optimizer[0]: a mapping with name, lr, weight_decay, momentum, nesterov, betas, eps expected; "
         "found 'sgd'."),
        ("exclude: {seed: 1}", "exclude: a list of mappings expected; found {'seed': 1}."),
        ("exclude: [5]", "exclude[0]: a mapping of settings expected; found number 5."),
        ("exclude: [{}]", "exclude[0]: an empty entry would leave out every run; name what it matches."),
        ("exclude: [null]", "exclude[0]: an empty entry would leave out every run; name what it matches."),
        ("include: {base: {}}",
         "include: a list of blocks with base, grid, zip, exclude expected; found {'base': {}}."),
        ("include: []", "include: a list of blocks with base, grid, zip, exclude expected; found []."),
        ("include: [5]", "include[0]: a block with base, grid, zip, exclude expected; found 5."),
        ("description: 5", "description: text expected; found 5."),
        ("slurm: gpu", "slurm: a mapping expected; found 'gpu'."),
        ("slurm: {timeout_min: 0}", "slurm.timeout_min: found 0: input should be greater than or equal to 1."),
        ("slurm: {cpus_per_task: true}", "slurm.cpus_per_task: found true: input should be a valid integer."),
        ("slurm: {gpus_per_node: [1]}", "slurm.gpus_per_node: found [1]: input should be a valid integer."),
    ],
)  # fmt: skip
def test_a_section_of_the_wrong_kind_is_refused(text: str, message: str) -> None:
    assert said(f"name: a\n{text}\n") == f"spec.yaml:2: {message}"


@pytest.mark.parametrize("section", ["grid", "zip"])
@pytest.mark.parametrize("written", ["", "{}", "null"])
def test_an_empty_grid_is_refused(section: str, written: str) -> None:
    message = said(f"name: a\n{section}: {written}\n")
    assert message.startswith(f"spec.yaml:2: {section}: a mapping from settings to lists of values expected; found ")


@pytest.mark.parametrize("section", ["grid", "zip"])
def test_an_empty_grid_is_refused_beside_included_blocks_too(section: str) -> None:
    message = said(f"name: a\n{section}:\ninclude: [{{grid: {{seed: 2}}}}]\n")
    assert message.startswith(f"spec.yaml:2: {section}: a mapping from settings to lists of values expected")


def test_an_outer_exclude_is_checked_beside_included_blocks_too() -> None:
    message = said("name: a\nexclude: [{metod: dense}]\ninclude: [{grid: {seed: 2}}]\n")
    assert message.startswith("spec.yaml:2: exclude[0].metod: unknown setting 'metod'. Did you mean 'method'?")


def test_an_outer_exclude_that_has_nothing_to_leave_out_is_refused() -> None:
    message = said("name: a\nexclude: [{method: dense}]\ninclude: [{grid: {seed: 2}}]\n")
    assert message.startswith("spec.yaml:2: exclude: there is no grid or zip beside it")


@pytest.mark.parametrize("section", ["grid", "zip"])
def test_an_empty_axis_is_refused(section: str) -> None:
    message = said(f"name: a\n{section}:\n  epochs: [1]\n  seed: []\n")
    assert message == f"spec.yaml:4: {section}.seed: an empty list leaves nothing to run."


def test_zip_lists_of_unequal_length_are_refused_with_their_lengths() -> None:
    message = said("name: a\nzip:\n  batch_size: [64, 128]\n  optimizer.lr: [0.1, 0.2, 0.3]\n")
    assert message == (
        "spec.yaml:2: zip: lists of one length expected, since they vary together; "
        "found batch_size: 2, optimizer.lr: 3."
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("base: {sparsity: 0.9, density: 0.1}", "base.density"),
        ("base: {density: 0.1, sparsity: 0.9}", "base.density"),
        ("base: {sparsity: 0.9}\ngrid: {density: [0.1]}", "grid.density[0]"),
        ("base: {density: 0.9}\ngrid: {sparsity: [0.1]}", "grid.sparsity[0]"),
        ("grid: {sparsity: [0.9], density: [0.1]}", "grid.density[0]"),
        ("zip: {sparsity: [0.9], density: [0.1]}", "zip.sparsity[0]"),
        ("grid: {sparsity: [0.9]}\nzip: {density: [0.1]}", "zip.density[0]"),
        ("grid: {seed: 2}\nexclude: [{sparsity: 0.9, density: 0.1}]", "exclude[0].density"),
        ("base: {sparsity: 0.9}\ninclude: [{grid: {density: [0.1]}}]", "include[0].grid.density[0]"),
    ],
)
def test_sparsity_and_density_are_never_both_given(text: str, place: str) -> None:
    message = said(f"name: a\n{text}\n")
    assert f": {place}: sparsity and density both given; they say the same thing: keep one." in message


@pytest.mark.parametrize(
    "text",
    [
        "grid: {epochs: [1]}\nzip: {epochs: [1]}",
        "grid: {optimizer: [{lr: 1}], optimizer.lr: [1]}",
        "grid: {optimizer.lr: [1]}\nzip: {optimizer: [{lr: 1}]}",
    ],
)
def test_a_setting_on_two_axes_is_refused(text: str) -> None:
    assert "is on two axes; keep one." in said(f"name: a\n{text}\n")


def test_a_setting_twice_within_zip_is_refused() -> None:
    message = said("name: a\nzip: {optimizer: [{lr: 1}], optimizer.lr: [1]}\n")
    assert message == "spec.yaml:2: zip.optimizer.lr[0]: optimizer.lr is given twice, dotted and nested."


@pytest.mark.parametrize("key", ["a\nb", "a\x1b[31mb", "a\u2028b"], ids=ascii)
def test_a_message_is_one_line_without_control_codes_whatever_a_key_holds(key: str) -> None:
    for text in (spec_text({key: 1}), spec_text(**{key: 1})):
        message = complaint(text)
        assert message.isprintable()
        assert "unknown" in message


@pytest.mark.parametrize("section", ["base", "grid", "exclude", "description", "include", "slurm"])
def test_a_message_stays_short_however_much_was_written(section: str) -> None:
    assert len(said(f"name: a\n{section}: {[[1] * 10] * 1000}\n")) < 1500


def test_every_setting_of_a_run_can_be_named() -> None:
    wanted = "sparsity density update_interval growth drop drop_fraction allocation method seed optimizer.lr "
    assert {*(wanted + "lr_schedule.milestones drop_schedule.stop training_multiplier").split()} <= {*SETTINGS}
    assert len({*SETTINGS}) == len(SETTINGS)
