import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.identity.user import RESERVED_NAMES, InvalidUsername, check_username
from moorage.ids import is_user_id


@pytest.mark.parametrize("name", ["al", "al-ice", "a.b_c-d", "42", "0x", "a--b", "a" * 32, "alice.admin"])
def test_a_good_name_is_taken_as_it_is(name: str) -> None:
    assert check_username(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a", "a" * 33, "-al", "al-", ".al", "al.", "_a", "a_", "a b", "a/b", "..", "a\n", "al\x00", "älice", "аlice"],
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidUsername) as caught:
        check_username(name)
    assert caught.value.errors[0]["loc"] == ["body", "username"]


@pytest.mark.parametrize("name", ["Alice", "ALICE", "aLice", "ＡＬ"])
def test_upper_case_is_refused_and_not_folded(name: str) -> None:
    with pytest.raises(InvalidUsername):
        check_username(name)


@pytest.mark.parametrize("name", ["admin", "root", "api", "me", "system", "moorage", "anonymous", "shared"])
def test_names_that_mean_something_are_reserved(name: str) -> None:
    with pytest.raises(InvalidUsername, match="reserved"):
        check_username(name)


def test_every_reserved_name_could_otherwise_be_taken() -> None:
    assert all(is_user_id(name) for name in RESERVED_NAMES)


@given(st.text(max_size=40))
def test_what_is_accepted_is_a_user_id(name: str) -> None:
    try:
        assert is_user_id(check_username(name))
    except InvalidUsername:
        assert not is_user_id(name) or name in RESERVED_NAMES
