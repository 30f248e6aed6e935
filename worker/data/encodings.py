"""What encoding a text of a stranger's is in: few annotation files say so."""

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Letters that UTF-8 writes in two bytes and hardly any word has: Latin Extended-B without those of Vietnamese, Romanian, Pinyin
# and Azeri, signs of the Greek block, Armenian, Syriac to N'Ko.
_RARE = re.compile(
    r"[\u0180-\u018e\u0190-\u019f\u01a2-\u01ae\u01b1-\u01cc\u01dd-\u0217\u021c-\u0258\u025a-\u02ff\u0370-\u0385\u0530-\u058f\u0700-\u07ff]"
)
_HANZI = re.compile(r"[\x00-\x7f\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]*")
_HIGH = re.compile(rb"[\x80-\xff]+")


def encoding_of(data: bytes) -> str:
    """The encoding of a text, or of its beginning: by its mark, else UTF-16 (zeros beside ASCII), UTF-8, GBK or Latin-1.

    GBK writes a Chinese character as two bytes of which the first, and nearly always the second, is above 127, so that such
    bytes stand together; in Latin-1 they stand alone, between ASCII letters.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    even, odd = data[0:512:2], data[1:512:2]
    if len(odd) > 1 and odd.count(0) > len(odd) // 2 > even.count(0):
        return "utf-16-le"
    if len(even) > 1 and even.count(0) > len(even) // 2 > odd.count(0):
        return "utf-16-be"
    if _decodes(data, "utf-8"):
        return "gb18030" if _is_gbk_by_chance_utf8(data) else "utf-8"
    runs = [len(run) for run in _HIGH.findall(data)]
    if sum(run for run in runs if run > 1) >= 0.75 * sum(runs) and _decodes(data, "gb18030"):
        return "gb18030"
    return "latin-1"


def _is_gbk_by_chance_utf8(data: bytes) -> bool:
    """Whether a short text in GBK happens to be UTF-8 too, as the word for pictures is: it would be of letters nobody uses."""
    text = codecs.getincrementaldecoder("utf-8")().decode(data)
    if max(text, default="") >= "\u0800" or not _RARE.search(text) or not _decodes(data, "gb18030"):
        return False
    return _HANZI.fullmatch(codecs.getincrementaldecoder("gb18030")().decode(data)) is not None


def encoding_of_names(names: bytes) -> str:
    """The encoding of a zip's names that carry no UTF-8 flag: UTF-8 (Finder leaves the flag out), GBK, else the zip's own cp437."""
    found = encoding_of(names)
    return "cp437" if found == "latin-1" else found


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        # A beginning may end inside a character.
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def decode(data: bytes) -> str:
    """The text of the bytes; a character that is cut off or broken is replaced."""
    try:
        # What nearly all are, decoded once: files of a gigabyte come by.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(encoding_of(data), "replace")
    return data.decode(encoding_of(data), "replace") if "\0" in text[:512] or _RARE.search(text) else text
