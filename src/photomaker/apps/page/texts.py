"""Every text of the page in each language; add a column to add a language."""

# ruff: noqa: RUF001 - Chinese has its own commas and brackets

from __future__ import annotations

LANGUAGES = {"en": "English", "zh": "中文"}
"""Codes and names of the languages; the first is the default."""

TEXTS: dict[str, tuple[str, str]] = {
    # the head
    "title": ("photomaker", "photomaker"),
    "claim": (
        "A few photos of a person in, new pictures of that person out.",
        "给几张照片，画出同一个人的新图片。",
    ),
    "language": ("Language", "语言"),
    "theme": ("Light or dark", "浅色或深色"),
    "small_model": (
        "The small built-in model draws cartoon people, in a second. For photographs, start the page with "
        "a large model.",
        "这是内置的小模型：只画卡通人物，一秒一张。要画真人照片，请用大模型启动本页面。",
    ),
    # who
    "who": ("Who", "谁"),
    "drop": ("Drop photos of one person here, or click", "把同一个人的照片拖到这里，或点击选择"),
    "drop_hint": ("three to five, with a clear face", "三到五张，脸要清楚"),
    "name": ("Name", "名字"),
    "name_hint": ("for example Ada", "例如：小艾"),
    "consent": ("Consent (optional)", "授权说明（可不填）"),
    "consent_hint": ("Ada, 28 November 2026, pictures for her blog", "小艾，2026年11月28日，用于她的博客"),
    "consent_info": (
        "Who agreed, when, and to what; written into every picture of this person.",
        "谁同意、何时、用途；这个人的每张图片都会带上它。",
    ),
    "save": ("Save this person", "保存这个人"),
    "clear": ("Remove the photos", "清空照片"),
    "remove_photo": ("Remove {name}", "去掉 {name}"),
    "library_empty": ("No saved people yet.", "还没有保存的人物。"),
    "example": ("example", "示例"),
    "unnamed": ("no name", "未命名"),
    "person_number": ("Person {number}", "人物 {number}"),
    "delete_person": ("Delete {name}", "删除 {name}"),
    "ask_delete_person": (
        "Delete {name}? The pictures of {name} stay.",
        "删除 {name}？已画好的图片会保留。",
    ),
    "saved": ("{name} is saved. Now describe the picture.", "{name} 已保存。现在写下想画什么。"),
    "saved_fewer": (
        "{name} is saved, from {kept} of {given} photos. Now describe the picture.",
        "{name} 已保存（用了 {given} 张中的 {kept} 张）。现在写下想画什么。",
    ),
    "person_deleted": ("{name} is deleted.", "{name} 已删除。"),
    "all_good": ("All {count} photos are good.", "{count} 张照片都很好。"),
    "all_usable": (
        "All {count} photos can be used; the marked ones could be better.",
        "{count} 张都可以用；有标记的可以更好。",
    ),
    "some_good": (
        "{kept} of {count} photos are good; the others are left out.",
        "{count} 张照片中有 {kept} 张可用，其余不会使用。",
    ),
    "none_good": (
        "None of these photos is good. You can save anyway, but better ones help.",
        "这些照片都不太好。仍可保存，但换几张更好。",
    ),
    "not_judged": (
        "No face detector is installed; the photos are used as they are.",
        "这里无法检查人脸，照片将直接使用。",
    ),
    "good_photo": ("Good", "很好"),
    "beside": ("Beside them, in the same picture", "同一张图里的另一个人"),
    "beside_hint": (
        "Then write both: a woman and a man. The first is on the left.",
        "提示词要写两个人，例如 a woman and a man；前一位在左边。",
    ),
    "nobody": ("Nobody", "没有"),
    "mix": ("Mix two people", "混合两个人"),
    "first": ("One", "第一位"),
    "second": ("The other", "第二位"),
    "share": ("More of which?", "更像哪一位？"),
    "share_hint": ("one ←  → the other", "第一位 ←  → 第二位"),
    "mix_button": ("Save the mix", "保存混合结果"),
    "mixed_name": ("{first} and {second}", "{first}和{second}"),
    # the coach's findings: what it is, and what to do
    "no face": ("No face found", "没有找到脸"),
    "no face!": ("Use one with a large face, seen from the front.", "换一张脸大而正面的。"),
    "several faces": ("Several faces", "有好几张脸"),
    "several faces!": (
        "The face of the person in the other photos is used; crop the photo if that is wrong.",
        "会选其他照片里的那个人；选错了就裁剪一下。",
    ),
    "small face": ("Face too small", "脸太小"),
    "small face!": ("Use a closer photo or a larger file.", "换近一些的照片，或更大的文件。"),
    "cut off": ("Face cut off", "脸被切掉"),
    "cut off!": ("Use one with the whole face.", "换一张脸完整的。"),
    "blurred": ("Blurred", "模糊"),
    "blurred!": ("Use a sharper one.", "换一张清晰的。"),
    "dark": ("Too dark", "太暗"),
    "dark!": ("Use one with more light on the face.", "换一张脸上光线更亮的。"),
    "blown out": ("Too bright", "太亮"),
    "blown out!": ("Use one with less light on the face.", "换一张脸上光线柔和的。"),
    "turned away": ("Turned away", "侧着脸"),
    "turned away!": ("A front view helps more.", "正面的照片更有用。"),
    "sunglasses": ("Sunglasses", "戴着墨镜"),
    "sunglasses!": ("Use one that shows the eyes.", "换一张能看到眼睛的。"),
    "mask": ("Something covers the mouth", "嘴被遮住了"),
    "mask!": ("Use one that shows the whole face.", "换一张露出整张脸的。"),
    "black and white": ("Black and white", "黑白照片"),
    "black and white!": ("Colour is better.", "彩色的更好。"),
    "near duplicate": ("Same photo twice", "重复的照片"),
    "near duplicate!": ("Use one from a different angle.", "换一张不同角度的。"),
    "another person": ("Somebody else?", "可能是别人"),
    "another person!": ("It looks different from the others; leave it out.", "与其他照片不像，建议去掉。"),
    "few photos": ("Few photos", "照片太少"),
    "few photos!": (
        "Three to five, from several angles, improve the likeness.",
        "三到五张、不同角度，会更像。",
    ),
    "all from one side": ("All from one side", "都是同一个角度"),
    "all from one side!": ("Add one that is turned another way.", "再加一张不同角度的。"),
    "covered": ("Something before the face", "脸前有东西"),
    "covered!": ("Give one that shows the whole face.", "换一张露出整张脸的。"),
    "not upright": ("Not upright", "方向不正"),
    "not upright!": ("It is turned for you.", "已自动转正。"),
    # what
    "what": ("What", "画什么"),
    "prompt": ("What should the picture show?", "图片里要有什么？"),
    "prompt_hint": ("a photo of a woman in the snow", "a photo of a woman in the snow（请用英文）"),
    "read_as": ("{name} replaces “{word}”.", "{name} 会代替“{word}”。"),
    "read_as_nobody": ("Your person replaces “{word}”.", "你选的人会代替“{word}”。"),
    "read_none": (
        "Name the person with one word: a man, a woman, a boy, a girl, a person.",
        "请用一个英文词说明是谁：a man、a woman、a boy、a girl、a person。",
    ),
    "read_two": (
        "Name both with one word each: a woman and a man in the snow.",
        "请用两个英文词说明两个人：a woman and a man in the snow。",
    ),
    "unknown_words": (
        "The small model has never seen {words}; it will most likely leave that out.",
        "小模型没见过 {words}，多半会忽略。",
    ),
    "ideas": ("Ideas", "试试"),
    "idea_beach": ("on the beach", "海滩"),
    "idea_hat": ("in a red hat", "红帽子"),
    "idea_library": ("in a library", "图书馆"),
    "idea_oil": ("in oil", "油画"),
    "idea_old": ("when old", "变老"),
    "style": ("Style", "风格"),
    "none": ("As I wrote it", "按我写的"),
    "photographic": ("Photograph", "照片"),
    "portrait": ("Studio portrait", "棚拍肖像"),
    "cinematic": ("Film still", "电影画面"),
    "noir": ("Film noir", "黑色电影"),
    "vintage": ("1970s photo", "七十年代老照片"),
    "comic": ("Comic", "漫画"),
    "anime": ("Anime", "动漫"),
    "line art": ("Line drawing", "线描"),
    "sketch": ("Pencil sketch", "铅笔素描"),
    "watercolour": ("Watercolour", "水彩"),
    "oil painting": ("Oil painting", "油画"),
    "pixel art": ("Pixel art", "像素画"),
    "3d render": ("3D film", "三维动画"),
    "fantasy": ("Fantasy", "奇幻"),
    "neon": ("Neon night", "霓虹夜景"),
    "size": ("Shape", "形状"),
    "square": ("Square", "方形"),
    "portrait_shape": ("Upright", "竖版"),
    "landscape": ("Wide", "横版"),
    "negative": ("What should not be in it?", "不想出现什么？"),
    "negative_hint": ("for example glasses, hat", "例如 glasses, hat（请用英文）"),
    "start": ("Starts from this picture", "从这张图开始"),
    "start_away": ("Start without a picture", "不再使用这张图"),
    "strength": ("How much may change?", "允许改变多少？"),
    "upload_start": ("Start from my own picture", "从我的一张图开始"),
    # how
    "how": ("How", "怎么画"),
    "likeness": ("Likeness or prompt?", "更像本人，还是更听文字？"),
    "likeness_hint": ("the prompt ←  → the person", "更听文字 ←  → 更像本人"),
    "count": ("How many pictures?", "画几张？"),
    "seed": ("Seed", "图片编号"),
    "seed_hint": ("random", "每次都新"),
    "more": ("More", "更多"),
    "fast": ("Fast, a little rougher", "快一点，稍粗糙"),
    "steps": ("Steps", "步数"),
    "steps_hint": ("more steps are finer and slower", "越多越细，也越慢"),
    "scheduler": ("Scheduler", "采样方法"),
    "own": ("Standard", "默认"),
    "guidance": ("Strictness", "严格程度"),
    "redraw": ("Redraw small faces", "把小脸放大重画"),
    "make": ("Make pictures", "开始画"),
    "cancel": ("Cancel", "取消"),
    # result
    "result": ("Pictures", "图片"),
    "empty": ("Your pictures appear here.", "图片会出现在这里。"),
    "try": ("Try an example:", "先点一下试试："),
    "example_ada": ("Ada in the snow", "艾达在雪中"),
    "example_ben": ("Ben in a red cap", "戴红帽的本"),
    "example_mix": ("Half Ada, half Ben", "一半艾达，一半本"),
    "waiting": ("{place} before you …", "前面还有 {place} 个 …"),
    "preparing": ("Getting ready …", "正在准备 …"),
    "drawing": ("Drawing {total} pictures: {share} %", "正在画 {total} 张：{share} %"),
    "drawing_one": ("Drawing: {share} %", "正在画：{share} %"),
    "done_one": ("Done. Click the picture for more.", "完成。点击图片查看更多。"),
    "done": (
        "Done: {count} pictures, sorted by likeness. Click one for more.",
        "完成：{count} 张，最像的在前。点击查看更多。",
    ),
    "done_compared": ("Done: same seed, one setting changed.", "完成：编号相同，只有一处不同。"),
    "cancelled": ("Cancelled; finished pictures stay.", "已取消；画好的图片会保留。"),
    "failed": ("It did not work: {reason}.", "没有成功：{reason}。"),
    "same": ("Same person", "是同一个人"),
    "other": ("Not quite the person", "不太像本人"),
    "unmeasured": ("Likeness not measured", "未测相似度"),
    "best": ("Best likeness", "最像"),
    "share_of": (
        "{share} % of the likeness of the photos to each other",
        "相当于照片之间相似度的 {share} %",
    ),
    "picture_of": ("Picture of {name}: {prompt}", "{name} 的图片：{prompt}"),
    "number": ("Seed {seed}", "编号 {seed}"),
    "again": ("The same again", "再画一次"),
    "variations": ("Variations", "变化几张"),
    "use_start": ("Start from it", "从它开始"),
    "redraw_one": ("Redraw the face", "重画脸部"),
    "download": ("Download", "下载"),
    "delete_picture": ("Delete", "删除"),
    "ask_delete_picture": ("Delete this picture for good?", "永久删除这张图片？"),
    "picture_deleted": ("The picture is deleted.", "图片已删除。"),
    "close": ("Close", "关闭"),
    "compare": ("Compare two settings", "比较两种设置"),
    "compare_what": ("What differs?", "哪一项不同？"),
    "compare_likeness": ("Likeness or prompt", "相似或文字"),
    "compare_button": ("Draw both", "画两张"),
    "history": ("Earlier pictures", "以前的图片"),
    "history_empty": ("None yet.", "还没有。"),
    "older": ("Show older ones", "显示更早的"),
    "newest": ("Show the newest", "显示最新的"),
    "likeness_0": ("prompt only", "只听文字"),
    "likeness_25": ("more prompt", "更听文字"),
    "likeness_50": ("in between", "居中"),
    "likeness_75": ("more likeness", "更像本人"),
    "likeness_100": ("most likeness", "尽量像本人"),
    # mistakes
    "no_photos": ("There are no photos yet; drop a few photos of one person first.", "还没有照片；请先拖入几张。"),
    "too_many_photos": (
        "These are {count} photos; choose the best {most}.",
        "一共 {count} 张，最多 {most} 张，请挑最好的。",
    ),
    "no_picture_file": (
        "{name} cannot be read as a picture; give a JPEG, PNG, WebP or HEIC file.",
        "无法读取 {name}；请给 JPEG、PNG、WebP 或 HEIC 图片。",
    ),
    "no_faces_at_all": (
        "No face was found in any of the photos; use photos with a clear face.",
        "所有照片里都没有找到脸；请换脸清楚的照片。",
    ),
    "no_person": (
        "Choose a person first: one of the saved ones, or drop photos and save.",
        "请先选一个人：从已保存的人物里选，或拖入照片并保存。",
    ),
    "no_prompt": ("Write what the picture should show.", "请写下图片里要有什么。"),
    "same_person": ("Choose a different second person, or nobody.", "请选另一个人，或选“没有”。"),
    "two_people": ("Choose two people to mix.", "请选两个人来混合。"),
    "two_values": ("Choose two different values to compare.", "请选两个不同的值来比较。"),
    "no_number": (
        "“{given}” is not a seed; write a whole number from 0 up, or nothing.",
        "“{given}”不是图片编号；请写 0 以上的整数，或留空。",
    ),
    "no_such_picture": ("Choose a picture first.", "请先选一张图片。"),
    "gone": (
        "The person or picture no longer exists; choose another.",
        "这个人物或图片已不存在；请另选一个。",
    ),
    "queue_full": (
        "Too many pictures are waiting; try again in {seconds} seconds.",
        "排队太多了，请 {seconds} 秒后再试。",
    ),
    "mistake": ("{reason}.", "出错了：{reason}。"),
    # access
    "token": ("Token", "口令"),
    "token_ask": ("This page is private. Enter your token.", "本页面不公开，请输入你的口令。"),
    "token_wrong": ("This token is not valid.", "口令不对。"),
    "enter": ("Enter", "进入"),
}  # fmt: skip


def say(language: str, key: str, **values: object) -> str:
    """A text of the page.

    Args:
        language: A code of `LANGUAGES`.
        key: Which text.
        **values: Values for its braces.
    """
    return TEXTS[key][list(LANGUAGES).index(language)].format(**values)


def known(key: str) -> bool:
    """Whether the text exists."""
    return key in TEXTS


def spoken(accepted: str) -> str:
    """The initial language.

    Args:
        accepted: A browser's `Accept-Language`, such as `zh-CN,zh;q=0.9,en;q=0.8`.
    """
    for one in accepted.lower().split(","):
        code = one.split(";")[0].strip().split("-")[0]
        if code in LANGUAGES:
            return code
    return next(iter(LANGUAGES))
