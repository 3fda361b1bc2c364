"""Which licence something may have, by what it is made of."""

import pytest
from huggingface_hub import HfApi, ModelCard

from hub_cards.model_card import lineage
from hub_cards.terms import Terms, check_license, known_terms, required_license, terms_of
from train.model_card import run_lineage

GROVE, OURS = known_terms("ekazakos/grove"), Terms("org/ours", "apache-2.0", "its card")
LLAMA = known_terms("lmsys/vicuna-7b-v1.5")


def test_names_are_known_whatever_their_case():
    assert known_terms("EKAZAKOS/howtoground1m").license == "cc-by-nc-sa-4.0"
    assert known_terms("org/iGround") is None and known_terms("facebook/sam-vit-huge").license == "apache-2.0"


@pytest.mark.parametrize(
    ("license_id", "terms", "wrong"),
    [
        ("apache-2.0", [OURS], None),
        ("cc-by-nc-sa-4.0", [GROVE, OURS], None),
        ("cc-by-nc-4.0", [GROVE], "expected cc-by-nc-sa-4.0"),
        ("apache-2.0", [OURS, GROVE], "made of 'ekazakos/grove'"),
        ("mit", [LLAMA], "expected llama2 or stricter"),
        ("llama2", [LLAMA, OURS], None),
        ("cc-by-nc-sa-4.0", [LLAMA, GROVE], None),
        ("mit", [Terms("a/b", "cc-by-nc-4.0", "its card")], "expected a non-commercial one"),
        ("cc-by-nc-sa-4.0", [GROVE, Terms("a/b", "cc-by-sa-4.0", "its card")], "expected cc-by-sa-4.0"),
        (None, [OURS], "no licence: give --license"),
    ],
)
def test_a_licence_fits_the_sources_or_not(license_id, terms, wrong):
    if wrong is None:
        assert check_license(license_id, terms) == license_id
    else:
        with pytest.raises(ValueError, match=wrong):
            check_license(license_id, terms)


def test_where_there_is_no_choice_nothing_has_to_be_said():
    assert required_license([OURS]) is None
    assert required_license([OURS, LLAMA]) == "llama2"
    assert required_license([LLAMA, GROVE]) == check_license(None, [LLAMA, GROVE]) == "cc-by-nc-sa-4.0"


def test_terms_are_followed_from_card_to_card(hub_repo):
    grandchild, child = hub_repo(), hub_repo()
    for name, base, license_id in ((child, "ekazakos/grove", "cc-by-nc-sa-4.0"), (grandchild, child, "other")):
        card = f"---\nlicense: {license_id}\nbase_model: {base}\ndatasets:\n- org/none-of-these\n---\n"
        HfApi().upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=name)
    said = {"org/none-of-these": "cc0-1.0"}
    assert [terms.name for terms in terms_of([grandchild], [], said)] == [
        grandchild, child, "org/none-of-these", "ekazakos/grove",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="datasets: no card on the Hub says the licence of 'org/none-of-these'"):
        terms_of([grandchild], [])
    HfApi().upload_file(path_or_fileobj=b"---\ntags: [x]\n---\n", path_in_repo="README.md", repo_id=child)
    with pytest.raises(ValueError, match=f"base_model: no card on the Hub says the licence of '{child}'"):
        terms_of([child], [])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, []),
        ({"vision_adapter_grid": [16, 36]}, ["ekazakos/grove"]),
        ({"freeze_vision_adapters": True}, ["ekazakos/grove"]),
        ({"text_config": {"hidden_size": 4096, "num_hidden_layers": 32}}, ["MBZUAI/GLaMM-GranD-Pretrained"]),
    ],
)
def test_a_configuration_gives_away_what_a_model_is_made_of(config, expected):
    assert lineage(config).base_models == expected
    assert lineage(config, ["ekazakos/grove"]).base_models == ["ekazakos/grove"]


def test_what_a_training_run_starts_from_holds_on(tmp_path, hub_repo):
    """In a folder that is no repository, its card says so."""
    start = tmp_path / "start"
    start.mkdir()
    assert run_lineage(str(start), {}, [], look_up=True).terms == []
    ModelCard("---\nlicense: cc-by-nc-sa-4.0\ndatasets:\n- ekazakos/iGround\n---\n").save(start / "README.md")
    found = run_lineage(
        str(start), {}, ["hf://datasets/ekazakos/HowToGround1M@main/x", tmp_path / "shards"], look_up=True
    )
    assert found.datasets == ["ekazakos/iGround", "ekazakos/HowToGround1M"]
    assert required_license(found.terms) == "cc-by-nc-sa-4.0" and found.terms[-1].name == "start"
    assert run_lineage("org/nobody-knows", {}, [], look_up=False).base_models == ["org/nobody-knows"]
    with pytest.raises(ValueError, match="says the licence of 'org/nobody-knows'"):
        run_lineage("org/nobody-knows", {}, [], look_up=True)
