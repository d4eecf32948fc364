import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from explain.archive.quantise import BOUNDS, CLIP_PERCENT, FORMS, Array, Form, decode, encode, size
from explain.errors import InputError, IntegrityError

ONE_ROUNDING = 2.0**-24
SMALLEST = 2.0**-149

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
maps = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=finite)


def there_and_back(values: Array, form: Form) -> tuple[Array, float]:
    data, scale = encode(values, form)
    assert len(data) == values.size * size(form)
    return decode(data, scale, values.shape, form), scale


def check_bound(values: Array, form: Form) -> None:
    found, scale = there_and_back(values, form)
    assert found.dtype == np.float32 and found.shape == values.shape
    clipped = np.clip(values.astype(np.float64), -scale, scale)
    error = np.abs(found - clipped)
    assert error.max() <= BOUNDS[form] * scale * (1 + 1e-6) + ONE_ROUNDING * scale + SMALLEST


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=200, deadline=None)
@given(values=maps)
@example(values=np.float32([[1e-40, 1e9]]))
@example(values=np.float32([[SMALLEST, 3.4e38]]))
@example(values=np.float32([[1e-12] * 199 + [1e9]]))
@example(values=np.float32([[-1e-40] * 7]))
@example(values=np.float32([[SMALLEST]]))
@example(values=np.float32([[-0.0]]))
def test_values_come_back_within_the_bound_of_the_form(values: Array, form: Form) -> None:
    check_bound(values, form)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=100, deadline=None)
@given(values=maps)
def test_signs_and_order_survive(values: Array, form: Form) -> None:
    found, _ = there_and_back(values, form)
    assert (found * np.sign(values) >= 0).all()
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("magnitude", [1e-40, 1e-12, 1.0, 1e9, 1e38])
@pytest.mark.parametrize("form", FORMS)
def test_maps_of_any_magnitude_survive(magnitude: float, form: Form) -> None:
    plain = np.random.default_rng(0).standard_normal((32, 32))
    values = (plain * magnitude / 4).astype(np.float32)
    check_bound(values, form)
    found, _ = there_and_back(values, form)
    assert np.corrcoef(found.ravel().astype(float), plain.ravel())[0, 1] > 0.999


def test_int8_gives_its_steps_to_the_bulk_and_not_to_one_spike() -> None:
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    values[3, 4] = -1e6
    found, scale = there_and_back(values, "int8")
    assert scale == pytest.approx(np.percentile(np.abs(values), CLIP_PERCENT), rel=1e-6)
    assert scale < 4
    assert len(np.unique(found)) > 200
    assert found[3, 4] == -np.float32(scale)


def test_fp16_keeps_a_spike() -> None:
    values = np.float32([[1.0, -60_000_000.0]])
    found, _ = there_and_back(values, "fp16")
    assert found[0, 1] == -60_000_000


def test_a_map_of_few_spikes_is_scaled_by_its_maximum() -> None:
    values = np.zeros((64, 64), np.float32)
    values[0, :3] = [1, -2, 4]
    found, scale = there_and_back(values, "int8")
    assert scale == 4
    np.testing.assert_allclose(found[0, :3], [1, -2, 4], atol=4 / 254)
    assert not found[1:].any()


@pytest.mark.parametrize("form", FORMS)
def test_zeros_have_the_scale_0(form: Form) -> None:
    found, scale = there_and_back(np.zeros((3, 5), np.float32), form)
    assert scale == 0 and not found.any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [-3.5, 1e-40, 7e8])
def test_a_constant_map_comes_back_exactly(value: float, form: Form) -> None:
    values = np.full((4, 4), value, np.float32)
    np.testing.assert_array_equal(there_and_back(values, form)[0], values)


def test_bytes_are_little_endian_rows_whatever_the_layout_in_memory() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert encode(values, "fp16") == ((values / 5).astype("<f2").tobytes(), 5.0)
    assert encode(np.asfortranarray(values), "int8") == encode(values, "int8")
    assert encode(values, "int8")[0][-1] == 127


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_warned_of_where_every_floating_point_error_is_raised(form: Form) -> None:
    with np.errstate(all="raise"):
        for values in ([[1e-40, 3.4e38]], [[0.0, 0.0]], [[1e-45, 1e-45]], [[1.0, 1e-30]]):
            there_and_back(np.float32(values), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float, form: Form) -> None:
    with pytest.raises(InputError, match="finite values, got 2"):
        encode(np.float32([[1, value], [value, 0]]), form)


@pytest.mark.parametrize(
    "values",
    [np.zeros((2, 2)), *(np.zeros(shape, np.float32) for shape in (4, (0, 3), (1, 2, 2))), [[1.0]]],
)
def test_what_is_no_float32_map_is_refused(values: object) -> None:
    with pytest.raises(InputError, match=r"float32 array \(h, w\)"):
        encode(values, "fp16")  # type: ignore[arg-type]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(InputError, match="fp16, int8, got 'int4'"):
        encode(np.zeros((2, 2), np.float32), "int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "scale"), [(b"123", 1.0), (b"12345", 1.0), (b"1234", np.nan), (b"1234", -1.0), (b"1234", np.inf)]
)
def test_bytes_that_cannot_be_a_map_are_damage(data: bytes, scale: float) -> None:
    with pytest.raises(IntegrityError, match="expected 4 bytes and a finite scale"):
        decode(data, scale, (2, 2), "int8")
