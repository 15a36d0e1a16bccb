#!/usr/bin/env python3
"""Scores of LongBench's public scorer on random texts: what src/eval/metrics is held to.

    python -m venv venv; venv/bin/pip install rouge==1.0.1 jieba==0.42.1 fuzzywuzzy==0.18.0
    venv/bin/python metrics.py PATH/TO/LongBench/metrics.py > golden.json

The public scorer (https://github.com/THUDM/LongBench, LongBench/metrics.py) is loaded from where it
lies; nothing of it is kept here. The texts are drawn from the pools below by SplitMix64, in the same
way here and in src/eval/metrics/goldens.rs, so that only pools and scores are stored.
"""

import importlib.util
import json
import logging
import sys
import warnings
from importlib.metadata import version

MASK = (1 << 64) - 1

POOLS = {
    "english": [
        *" " * 40, ". ", ", ", ".", "\n", "\t", "\u00a0", "\u001c", "; ", "? ", "...",
        "the ", "a ", "An ", "The", "a", "an", "theory", "A-the", "the_a", "mill", "Mill", "river", "old",
        "stands", "on", "built", "in", "1874", "by", "two", "brothers", "flood", "wheel", "town", "paid",
        "400", "crowns", "it's", "don't", "e.g.", "U.S.", "3.14", "naïve", "Ünder", "ΣΑΣ", "İzmir", "straße",
        "中文", "½", "x²", "--", "\"quoted\"", "(in", "brackets)", "$5", "50%", "#1", "\u200b", "é", "e\u0301",
    ],
    "chinese": [
        *"，。、；：？！", " ", "\n", "　", "“", "”", "《", "》", "（", "）", "…", "—", ".", ", ", "%", "-",
        "厦门", "大学", "厦门大学", "美国文学", "研究会", "第十八届", "年会", "举办", "哪所", "中国", "社会科学院",
        "北京", "北京大学", "南京", "外国语", "学院", "会长", "单位", "秘书处", "设在", "正式", "成立", "于", "年", "月",
        "一九七九", "1979", "7", "２０１６", "是", "我国", "改革开放", "后", "最早", "的", "了", "在", "和", "不", "人",
        "工作", "总结", "会议", "记录", "小明", "硕士", "毕业", "计算所", "后来", "到", "日本", "京都", "深造", "研究生",
        "命", "起源", "杭研", "大厦", "来到", "网易", "他", "她", "李小福", "创新办", "主任", "云计算", "方面", "专家",
        "乒乓球", "拍卖", "完了", "龘", "犇", "囧", "靐", "𠮷", "㐀", "LongBench", "A座", "T恤", "c++", "C#", "x_1",
    ],
    "code": [
        *"    ", "\n", "(", ")", ", ", ".", ":", " = ", "self", "return ", "def ", "if ", "x", "y", "i", "value",
        "values", "None", "0", "1", "[", "]", "\"", "len", "append", "for ", " in ", "range", "+", "-", "==", "名",
    ],
    "comments": ["# ", "//", "`", "\n", "```\n", "\n\n"],
    "classes": [
        "Number", "Date", "Number of something", "City", "Country", "State", "Other", "Other location",
        "location", "Expression", "Expression abbreviated", "Abbreviation", "Other number", "时政", "时政要闻",
    ],
    "numbers": ["1", "2", "3", "12", "21", "03", "３", "Paragraph ", "段落", " ", ", ", " or ", "x", "."],
}
CASES = 1000


class Random:
    """SplitMix64."""

    def __init__(self, seed):
        self.state = seed

    def draw(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, bound):
        return (self.draw() * bound) >> 64

    def length(self):
        """Mostly short; one in eight is long."""
        return self.below(400) if self.below(8) == 0 else self.below(40)

    def text(self, *pools):
        pool = [piece for name in pools for piece in POOLS[name]]
        return "".join(pool[self.below(len(pool))] for _ in range(self.length()))

    def pair(self, *pools):
        """A prediction and a reference: one in eight equal, half with a beginning in common."""
        prediction, reference = self.text(*pools), self.text(*pools)
        kind = self.below(8)
        if kind == 0:
            reference = prediction
        elif kind < 5:
            reference = prediction[: self.below(len(prediction) + 1)] + reference
        return prediction, reference


def load(path):
    warnings.simplefilter("ignore")
    spec = importlib.util.spec_from_file_location("public_metrics", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(public):
    rows = []
    for case in range(CASES):
        random = Random(case)
        english = random.pair("english")
        chinese = random.pair("chinese")
        code = random.pair("code")
        reply = random.text("comments", "code")
        named = random.text("classes", "english")
        right = POOLS["classes"][random.below(len(POOLS["classes"]))]
        said = random.text("numbers")
        wanted = POOLS["numbers"][random.below(7)]
        paragraph = "Paragraph " + POOLS["numbers"][random.below(7)]
        section = "段落" + POOLS["numbers"][random.below(7)] + "。"
        rows.append([
            public.qa_f1_score(*english),
            public.rouge_score(*english),
            public.qa_f1_zh_score(*chinese),
            public.rouge_zh_score(*chinese),
            public.code_sim_score(*code),
            public.code_sim_score(reply, code[1]),
            public.classification_score(named, right, all_classes=POOLS["classes"]),
            public.count_score(said, wanted),
            public.retrieval_score(said, paragraph),
            public.retrieval_zh_score(said, section),
        ])
    return rows


def main():
    import jieba

    jieba.setLogLevel(logging.ERROR)
    sys.setrecursionlimit(10_000)
    rows = scores(load(sys.argv[1]))
    tools = ["rouge", "jieba", "fuzzywuzzy"]
    # A dot and digits where there are any: nine of them are more than are compared.
    short = lambda score: 0 if score == 0 else 1 if score == 1 else round(score, 9)
    columns = [[short(score) for score in column] for column in zip(*rows)]
    names = ["qa_f1", "rouge_l", "qa_f1_zh", "rouge_l_zh", "code", "code_in_comments",
             "classification", "count", "retrieval", "retrieval_zh"]
    golden = {
        "python": sys.version.split()[0],
        "versions": {tool: version(tool) for tool in tools},
        "pools": POOLS,
        "scores": dict(zip(names, columns)),
    }
    json.dump(golden, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


main()
