"""What is the two-letter code of a language that a program names with three? (ISO 639-3 to ISO 639-1)"""

from __future__ import annotations

from typing import Final

_TABLE: Final = """
afr:af ara:ar arg:an aze:az bak:ba bel:be ben:bn bos:bs bre:br bul:bg cat:ca ces:cs chv:cv cos:co cym:cy
dan:da deu:de ell:el eng:en epo:eo est:et eus:eu fao:fo fas:fa fin:fi fra:fr gle:ga glg:gl glv:gv guj:gu
hat:ht hbs:sh heb:he hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jpn:ja kat:ka kaz:kk kir:ky kor:ko
lat:la lav:lv lit:lt ltz:lb mal:ml mar:mr mkd:mk mlt:mt msa:ms nep:ne nld:nl nno:nn nob:nb nor:no oci:oc
pan:pa pes:fa pol:pl por:pt ron:ro rus:ru sin:si slk:sk slv:sl sme:se spa:es sqi:sq srd:sc srp:sr swa:sw
swe:sv tam:ta tat:tt tel:te tgk:tg tha:th tuk:tk tur:tr uig:ug ukr:uk urd:ur uzb:uz vie:vi zho:zh zul:zu
"""
"""The languages that Apertium translates and that have a two-letter code."""
_TWO_LETTERS: Final = dict(line.split(":") for line in _TABLE.split())


def to_two_letters(code: str) -> str:
    """The two-letter code of a language, or the code itself if there is none."""
    return _TWO_LETTERS.get(code, code)
