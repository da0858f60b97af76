"""The word lists of the grammar rules and of the style measures."""

# ruff: noqa: SIM905, RUF001 - word lists read best as lines of words; apostrophes come in two kinds

from __future__ import annotations

# A full stop after one of these does not end a sentence.
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr vs etc e.g i.e cf fig vol pp ca approx dept est inc ltd co".split()
)

# Common words that other languages written in the same letters do not share.
ENGLISH = frozenset(
    "the and of to is that it with for this are were have has had be been they we you he she his her my our their"
    " not but from by or which will would can could there when what who if does did because about into than then"
    " these those some other more only its your how i'm don't it's".split()
)

# "That that", "had had" and "is is" can be right, these can not.
DOUBLED_BY_MISTAKE = frozenset(
    "the a an and or of to at it was were for with we he she they you this but by from as be are will would"
    " have".split()
)

# Before these a lone "a" is a letter or a name ("vitamin A in milk", "a or b"), not an article.
NOT_AFTER_ARTICLE = frozenset("and or in is as at on if of it are also i into".split())

_MISSPELT = (
    "teh:the recieve:receive recieved:received seperate:separate definately:definitely occured:occurred"
    " untill:until wich:which becuase:because thier:their freind:friend freinds:friends"
    " goverment:government accomodate:accommodate begining:beginning beleive:believe occurence:occurrence"
    " neccessary:necessary tommorow:tomorrow wierd:weird truely:truly arguement:argument"
    " enviroment:environment existance:existence knowlege:knowledge"
)
_NOT = "do does did is was were are could should would have has had"

# (rule, pattern of whole words in any case, replacement). "its going rate", "its very nature", "the might of"
# and "one of you was" are right, so their like is not here.
REPLACED: tuple[tuple[str, str, str], ...] = (
    ("its_or_it_is", r"its(?= (?:a|an|the|been|because)\b)", "it's"),
    ("its_or_it_is", r"it['’]s(?= own\b)", "its"),
    ("could_have", r"(could|should|would) of(?! course)", r"\1 have"),
    ("agreement", r"(?<!of )(we|they|you) was", r"\1 were"),
    ("agreement", r"(?<!and )(?<!or )(he|she|it) (?:don['’]t|dont)", r"\1 doesn't"),
    ("comparison", r"(rather|larger|smaller|greater|fewer|older|younger) then(?= (?:the|a|an|any)\b)", r"\1 than"),
    *(("apostrophe", f"{stem}nt", f"{stem}n't") for stem in _NOT.split()),
    *(("apostrophe", f"{stem}{tail}", f"{stem}'{tail}") for stem in ("you", "they") for tail in ("re", "ve")),
    *(("spelling", wrong, right) for wrong, right in (pair.split(":") for pair in _MISSPELT.split())),
    ("spelling", "alot", "a lot"),
)

# What the styles are told apart by: words that are frequent in one and rare in the others.
CASUAL = frozenset(
    "gonna wanna gotta kinda sorta yeah yep nope okay ok hey hi cool awesome stuff guy guys lots really pretty"
    " just anyway super totally basically dad mum mom kid kids wow oh well so i me my we us you your".split()
)
FORMAL = frozenset(
    "therefore however moreover furthermore thus hence consequently nevertheless accordingly whereas pursuant"
    " regarding concerning shall ought must upon herein such particular significant considerable respectively"
    " encompasses utilized utilised facilitate demonstrate constitute".split()
)
CREATIVE = frozenset(
    "storm sea ocean wind night moon star stars shadow shadows dream dreams whisper whispered silence heart soul"
    " ancient golden silver crimson glimmer gleaming darkness light fire mist ship captain sword kingdom magic"
    " weathered trembling echo forgotten tale journey horizon waves dawn dusk rain blood stone forest river"
    " sailed gazed wandered creaking roar fury once suddenly softly he she him her his they".split()
)
TECHNICAL = frozenset(
    "algorithm algorithms data database system systems function functions network networks neural model models"
    " parameter parameters api server client software hardware compute computer computing machine learning"
    " protocol interface module process processing input output variable latency throughput memory code"
    " compiler query schema training inference vector matrix configuration deploy version artificial".split()
)
# What the tone is told by.
POSITIVE = frozenset(
    "good great best better happy joy love wonderful beautiful excellent success hope bright delight benefit"
    " benefits improve improves improved opportunity opportunities easy helpful enjoy win safe warm".split()
)
NEGATIVE = frozenset(
    "bad worse worst sad fear afraid death dead die loss lost pain dark terrible awful fail failed failure"
    " danger dangerous storm war cruel hate broken alone grief cold risk risks threat harm".split()
)
