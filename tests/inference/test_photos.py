"""What photos are taken for, and what they are called."""

import io
import os
import sys

import numpy as np
import pytest
from PIL import Image
from support import plain_photo

from ktl.data.found import UNREADABLE
from ktl.data.images import BadPhoto, decode
from ktl.data.views import evaluation_view
from ktl.errors import UserError
from ktl.inference.photos import find_photos, name_photos, passed_over_at


def noise(height: int = 50, width: int = 70, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def png(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_names_stand_for_files_and_folders(tmp_path, monkeypatch):
    names = ("b/2.JPG", "b/1.webp", "a.png", "b/c/d.jpeg", "b/.hidden/e.png", "b/._2.jpg", "__MACOSX/f.png", "g.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    assert list(map(str, find_photos(["."]))) == ["a.png", "b/1.webp", "b/2.JPG", "b/c/d.jpeg"]
    assert list(map(str, find_photos(["g.txt", "b/c", "none"]))) == ["g.txt", "b/c/d.jpeg", "none"]
    names = io.TextIOWrapper(io.BytesIO(b"g.txt\n\nb/c\r\ncaf\xe9.jpg"))
    monkeypatch.setattr(sys, "stdin", names)
    assert list(map(os.fsencode, find_photos(["-", "a.png"]))) == [b"g.txt", b"b/c/d.jpeg", b"caf\xe9.jpg", b"a.png"]


def test_what_a_folder_has_besides_is_counted(tmp_path):
    for name in ("a/1.png", "a/.2.png", "a/3.heic", "a/4.txt", "__MACOSX/5.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "a" / "6.png")
    assert passed_over_at(tmp_path) == (
        ("hidden photos", 2, str(tmp_path / "__MACOSX" / "5.png")),
        ("photos of formats that are not read", 1, str(tmp_path / "a" / "3.heic")),
        ("other files", 1, str(tmp_path / "a" / "4.txt")),
        ("pipes, sockets or devices", 1, str(tmp_path / "a" / "6.png")),
    )
    assert passed_over_at(tmp_path / "a" / "1.png") == ()


@pytest.mark.parametrize("special", ["pipe.png", "/dev/zero"])
def test_what_a_reader_would_wait_for_is_a_photo_that_cannot_be_read(tmp_path, special):
    os.mkfifo(tmp_path / "pipe.png")
    (photo,) = name_photos(tmp_path / special)
    with pytest.raises(BadPhoto, match="no regular file"):
        photo.view(42)


@pytest.mark.parametrize("standard_input", [b"", b"\n\n"])
def test_no_photo_is_one_line(tmp_path, monkeypatch, standard_input):
    with pytest.raises(UserError, match=r"^Expected photos, or folders with photos \(\.bmp, .*Received: /[^\n]*$"):
        find_photos([str(tmp_path)])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(standard_input)))
    with pytest.raises(UserError, match="Received: no name"):
        find_photos(["-"])


def test_files_folders_images_and_arrays_in_their_order(tmp_path):
    for name in ("photos/b.png", "photos/a.jpg", "c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = [tmp_path / "photos", f"{tmp_path}/c.png", Image.new("L", (9, 9)), noise(), tmp_path / "none.jpg"]
    names = [str(tmp_path / name) for name in ("photos/a.jpg", "photos/b.png", "c.png")]
    names += ["photos[2]", "photos[3]", str(tmp_path / "none.jpg")]
    assert [photo.name for photo in name_photos(given)] == names
    assert [photo.name for photo in name_photos(iter(given))] == names


@pytest.mark.parametrize("wrap", [lambda photo: photo, lambda photo: [photo]])
def test_one_photo_need_not_be_in_a_list(wrap, tmp_path):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(noise())))
    expected = evaluation_view(noise(), size=20)
    for photo in (tmp_path / "a.png", str(tmp_path / "a.png"), str(tmp_path), Image.fromarray(noise()), noise()):
        (named,) = name_photos(wrap(photo))
        np.testing.assert_array_equal(named.view(20), expected)


def test_a_stack_of_arrays_is_a_photo_a_row():
    stack = np.stack([noise(seed=seed) for seed in range(3)])
    named = name_photos(stack)
    assert [photo.name for photo in named] == ["photos[0]", "photos[1]", "photos[2]"]
    for photo, pixels in zip(named, stack, strict=True):
        np.testing.assert_array_equal(photo.view(20), evaluation_view(pixels, size=20))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_an_image_of_any_mode_is_seen_as_its_file_is(mode):
    if mode == "I;16":
        image = Image.fromarray(noise()[..., 0].astype(np.uint16) * 256)
    else:
        image = Image.fromarray(noise()).convert(mode)
    (named,) = name_photos(image)
    encoded = png(image.convert("RGB") if mode == "CMYK" else image)
    np.testing.assert_array_equal(named.view(20), evaluation_view(decode(encoded), size=20))


def test_an_image_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = png(Image.fromarray(noise()), exif=exif.tobytes())
    (named,) = name_photos(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(named.view(20), evaluation_view(decode(encoded), size=20))


def test_a_damaged_image_is_a_bad_photo():
    (named,) = name_photos(Image.open(io.BytesIO(png(Image.fromarray(noise()))[:-900])))
    with pytest.raises(BadPhoto, match="truncated"):
        named.view(20)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_pixels_is_a_bad_photo(size):
    (named, _) = name_photos([Image.new("RGB", size), noise()])
    with pytest.raises(BadPhoto, match="no pixels: {} x {}".format(*size)):
        named.view(20)


@pytest.mark.parametrize("name", ["x" * 300, "zero\0byte", "  "])
def test_a_name_that_no_file_has_is_a_bad_photo(name):
    (named, _) = name_photos([name, noise()])
    with pytest.raises(BadPhoto, match="cannot be read: "):
        named.view(20)


@pytest.mark.parametrize(
    ("photos", "received"),
    [
        (noise().astype(np.float32) / 255, r"photos\[0\] is float32 \[50, 70, 3\]"),
        ([noise(), noise()[..., 0]], r"photos\[1\] is uint8 \[50, 70\]"),
        (noise()[None, None], r"photos\[0\] is uint8 \[1, 50, 70, 3\]"),
        (noise().transpose(2, 0, 1), r"photos\[0\] is uint8 \[3, 50, 70\]"),
        (["a.jpg", 7], r"photos\[1\] is of type int"),
        ([b"bytes"], r"photos\[0\] is of type bytes"),
        ([], "none"),
        (np.empty((0, 9, 9, 3), np.uint8), "none"),
    ],
)
def test_what_is_no_photo_is_one_line(photos, received):
    with pytest.raises(UserError, match=rf"^Expected [^\n]* Received: {received}$"):
        name_photos(photos)


def test_folders_and_photos_at_urls(place, tmp_path):
    for name in ("b/2.jpg", "b/.hidden.jpg", "__MACOSX/3.jpg", "notes.txt", "a 1.PNG"):
        place.put(f"photos/{name}", plain_photo(1))
    folder, alone = f"{place.url}/photos", f"{place.url}/none.jpg"
    assert find_photos([folder, alone]) == [f"{folder}/a 1.PNG", f"{folder}/b/2.jpg", alone]
    first, *_, missing = name_photos([folder, alone])
    np.testing.assert_array_equal(first.view(8), evaluation_view(decode(plain_photo(1)), size=8))
    assert (first.name, missing.name) == (f"{folder}/a 1.PNG", alone)
    with pytest.raises(BadPhoto, match=r"^cannot be read: No such file or directory$"):
        missing.view(8)
    assert passed_over_at(folder) == ()


def test_a_url_that_nothing_here_reads_is_no_bad_photo():
    """The others of a list would be none either."""
    (named,) = name_photos("nokind://host/a.jpg")
    with pytest.raises(UserError, match=r"^Expected (a URL of a kind|the packages for)"):
        named.view(8)


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    if os.access(tmp_path / "a", os.R_OK):
        pytest.skip("whoever runs this may read everything")
    assert passed_over_at(tmp_path) == ((UNREADABLE, 1, str(tmp_path / "a")),)
    assert passed_over_at(tmp_path / "a") == ((UNREADABLE, 1, str(tmp_path / "a")),)
