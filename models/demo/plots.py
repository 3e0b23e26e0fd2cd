"""The sentences of the training stories, as text with choices in it.

Owns text only, in the notation of `grammar.py`: `[a|b]` is a choice, `{hero}` a word of the
story. Slots: hero, he, him, his (the hero), friend, she, her, hers (the friend; hers as in
"his house"), kind (what the hero is), adj, adj2, place ("a farm"), home ("the farm"), thing, colour, food, animal, elder.
"""
# ruff: noqa: E501  (one sentence a line is easier to read than wrapped ones)

OPENINGS = (
    "Once upon a time[,|] there was {a adj} {kind} named {hero}. {Hero} lived [in|near] {place}.",
    "Once upon a time, in {place}, there lived {a adj} {kind} [named|called] {hero}.",
    "Once there was {a kind} [named|called] {hero}. {He} was very {adj} and [a little|a bit|always] {adj2}.",
    "There once was {a kind} named {hero} who lived in {place} with {his} {elder}.",
    "Long ago, {a adj} {kind} named {hero} lived [near|in|not far from] {place}.",
    "One [sunny|cold|warm|rainy|windy|bright|quiet] [day|morning], {a kind} named {hero} [went to|walked to|came to] {place}.",
    "One [day|morning|afternoon], {hero} the {kind} [woke up early|could not sit still|had nothing to do].",
    "{Hero} was {a adj} {kind}. {He} lived in {place} with {his} {elder} and {his} friend {friend}.",
    "In {place} there lived {a kind} called {hero}, who [liked|loved] nothing more than {food}.",
    "It was a [beautiful|cold|rainy|quiet|lovely|grey] [morning|day|evening]. {Hero} the {kind} sat [by the window|at the door|under a tree|in the grass] and [looked at the sky|thought of {food}|waited for {friend}].",
)

HABITS = (
    "Every day {he} [played|walked|sang|ran] [in the garden|by the river|in the woods|on the hill|near the old bridge].",
    "{He} had {a colour} {thing} that {he} [liked|loved] very much.",
    "{He} loved to [eat {food}|look at the stars|listen to the birds|play with {friend}|tell stories|sing songs|swim in the lake].",
    "{His} best friend was [called|named] {friend}.",
    "{Hero} was never afraid of [the dark|the rain|anything|work|the wind].",
    "Everyone [liked|knew] {hero} because {he} was so {adj}.",
    "In the evening {he} liked to sit [by the fire|with {his} {elder}|under the big tree] and [eat {food}|listen to old stories|drink warm milk].",
    "{He} had [two brothers|three sisters|many friends|one good friend|a small garden|a soft bed], and {he} was [happy|glad].",
)

# each plot: beginning, middle, end; every part has variants
PLOTS = {
    "lost": (
        (
            "One day {he} [could not find|lost] {his} {thing}. {He} looked [under the bed|behind the door|in the kitchen|under the table], but it was not there.",
            'But one morning the {colour} {thing} was gone. "Where is my {thing}?" [cried|asked|said] {hero}.',
            "One [windy|rainy] day, {hero} dropped {his} {thing} [near the river|in the long grass|on the way home] and did not see it.",
        ),
        (
            '{He} asked {friend}, "Have you seen my {thing}?" "No," said {friend}, "but I will help you look for it."',
            '{Friend} came and said, "Do not [cry|worry|be sad], {hero}. We will find it together."',
            "{He} [looked|searched] everywhere. {He} looked in the [garden|shed|barn|house], and {he} looked by the [pond|fence|road], but {he} found only {a thing2}.",
            "{Hero} was so sad that {he} [sat down and cried|did not want to eat|could not sleep].",
        ),
        (
            'At last {friend} [saw|found] the {thing} [under a leaf|in a tree|behind a big stone|next to the pond]. "Here it is!" {she} [said|called|cried].',
            'Then they saw a [bird|crow|mouse|squirrel] with the {thing}. "I am sorry," it said. "I did not know that it was yours." And it gave the {thing} back.',
            "In the end the {thing} was in {his} own [bag|pocket|basket] all the time. {Hero} laughed, and {friend} laughed too.",
        ),
    ),
    "stranger": (
        (
            'One day {he} met {a animal} who was [sad|crying|all alone|very tired]. "Why are you [sad|crying|here all alone]?" asked {hero}.',
            "On the road {he} saw {a animal} with a [hurt leg|broken wing|big thorn in its foot|very heavy bag].",
            "One evening there was a knock at the door. It was {a animal}, [wet from the rain|cold and hungry|far from home].",
        ),
        (
            '"I have [no friends|no home|lost my way|nothing to eat]," said the {animal}. "Then come with me," said {hero}.',
            '"Can you help me?" asked the {animal}. "Of course I can," said {hero}, and {he} [gave it {food}|took it home|made a warm bed for it].',
            "{Hero} was a little afraid at first, but {he} [took a deep breath|was kind] and [said hello|gave the {animal} some {food}].",
        ),
        (
            'The {animal} was very happy. "Thank you," it said. "You are a [good|true|kind] friend."',
            "From that day on, {hero} and the {animal} were [best friends|always together|good friends].",
            "The next day the {animal} came back with [a {colour} {thing}|a basket of {food}|all its friends] to say thank you.",
        ),
    ),
    "wish": (
        (
            "{Hero} had [one big wish|a dream]. {He} wanted to [fly like a bird|see the sea|climb the highest hill|find {a colour} {thing}|learn to swim].",
            'One night {he} looked at the [moon|stars] and said, "I wish I could [see the sea|fly|sing|have {a colour} {thing}]."',
            '"One day I will [see the sea|climb that hill|build my own boat|learn to dance]," {hero} always said. But the others laughed at {him}.',
        ),
        (
            '"That is too hard for {a kind}," said the others. But {hero} did not give up.',
            'So {he} asked {his} {elder}. "You must [try every day|be patient|go step by step|believe in yourself]," said the {elder}.',
            "{He} tried and tried. The first day {he} fell down. The second day {he} fell down again. But {he} [did not stop|tried once more].",
            '{Friend} said, "I will come with you." So they took some {food} and [walked|went] a long way, over [hills|fields] and through [woods|rivers].',
        ),
        (
            "And one day it worked! {Hero} was so [happy|proud] that {he} [danced|sang|jumped up and down|laughed out loud].",
            "At last {his} wish came true, and {he} told everyone in {home} about it.",
            'It took a whole year, but in the end {he} did it. "I knew you could," said {friend}.',
        ),
    ),
    "storm": (
        (
            "One night there was a [big|terrible|wild] storm. The wind [blew|howled] and the rain [fell|came down] all night.",
            'That day dark clouds came over {home}. "A storm is coming," said {his} {elder}. And soon it rained and rained.',
            "The river grew [wider and wider|higher and higher] in the rain, and the little bridge [broke|was gone].",
        ),
        (
            "{Hero} heard someone call for help. It was {friend}! {She} was [stuck in the mud|up in a tree|on the other side of the river].",
            "{Hero} was [warm|safe] in {his} house, but {he} thought of {friend}, who was all alone out there.",
        ),
        (
            '{Hero} took {a thing} and ran out into the [rain|wind|night]. "Hold on!" {he} called. And {he} pulled {friend} [out|to the house|back to the land].',
            "{Hero} ran to {friend} and brought {her} home. They sat by the fire and ate {food} until the storm was over.",
            "{He} went out and helped {friend}. In the morning the sun came out. Everything was [wet|quiet], but everyone was safe.",
        ),
    ),
    "winter": (
        (
            "Then winter came. The snow was so deep that nobody could [go out|find food|leave the house].",
            "It was the coldest winter of all. There was ice on the [river|lake|pond], and snow on every tree.",
        ),
        (
            "{Friend} had no {food} left, and {hers} house was cold.",
            '"I am so [cold|hungry]," said {friend}. "When will spring come?"',
            "{Hero} looked out of the window and saw {a animal} in the snow. It was [cold|hungry|tired].",
        ),
        (
            '"Come in," said {hero}. "There is room for all of us." And they ate {food} by the fire.',
            "So {hero} shared {his} {food}, and they told stories until the snow was gone.",
            "{Hero} made a big pot of soup for everyone, and nobody was cold any more.",
        ),
    ),
    "share": (
        (
            'One day {hero} found [a basket full of|some|a lot of] {food}. "It is all mine," {he} said.',
            "{His} {elder} gave {him} a bag of {food}. {Hero} was so [hungry|happy] that {he} wanted to eat it all.",
        ),
        (
            "Then {friend} came by. {She} was [hungry|tired] and had nothing to eat.",
            "{He} hid [behind a tree|under the bed|in the barn] to eat it alone, but {he} did not feel happy at all.",
        ),
        (
            'Then {hero} thought, "It is no fun alone." So {he} gave half of it to {friend}.',
            '"Here, take some," said {hero} at last. They sat down and shared everything. It was the best [meal|afternoon] of {his} life.',
        ),
    ),
    "quarrel": (
        (
            '{Hero} and {friend} both wanted the same {colour} {thing}. "It is mine!" said {hero}. "No, it is mine!" said {friend}.',
            'One day {hero} and {friend} found {a colour} {thing}. "I saw it first!" cried {hero}. "No, I did!" cried {friend}.',
        ),
        (
            "They [pulled and shouted|were angry|did not talk] for a long time, and in the end nobody had any fun.",
            "They pulled and pulled, and then the {thing} broke. Now they were both sad.",
        ),
        (
            '"I am sorry," said {hero} at last. "I am sorry, too," said {friend}. And they were friends again.',
            '"Let us not fight," said {hero}. "A friend is better than {a thing}." And {friend} smiled.',
        ),
    ),
    "find": (
        (
            "One day {he} found {a colour} {thing} [in the grass|by the river|under a stone|on the road|behind the barn].",
            "While {he} [dug in the garden|played by the water|walked home], {hero} found {a colour} {thing}.",
        ),
        (
            '"Whose {thing} is this?" {he} asked. {He} asked {friend}, and {he} asked {his} {elder}, but nobody knew.',
            '{He} picked it up, and it began to [sing|shine|talk]! "Do not be afraid," it said. "I can [give you one wish|show you the way|tell you a secret]."',
            '"What is it?" asked {friend}. "It is {a thing}," said {hero}, "and it is [beautiful|very old|so pretty]."',
        ),
        (
            "So {hero} [kept it in a little box|gave it to {friend}|put it by the window], and it made {him} smile every day.",
            'In the end an old [man|woman] came and said, "That is mine. Thank you for keeping it safe." And {hero} was glad.',
            "{Hero} took it home, and everyone in {home} came to [look at|see] it.",
        ),
    ),
    "party": (
        (
            "It was {friend}'s birthday, and {hero} wanted to [make a cake for {her}|bake something good].",
            "There was going to be a [big|great] [party|feast], and {hero} wanted to bake a cake for {friend}.",
        ),
        (
            "{He} took flour, eggs and honey and mixed them in a big bowl. But the bowl fell on the floor!",
            "But {he} had no money for flour. So {he} [worked in the garden|swept the floor|carried wood] all day for {his} {elder}.",
            '"Can I help?" asked {a animal}. "Yes, please," said {hero}. Together they worked [all day|until the evening].',
        ),
        (
            "At last the cake was ready. When {friend} came, {she} was so [surprised|happy] that {she} [laughed and clapped|gave {hero} a hug|could not say a word].",
            "In the end there was a cake. They [danced|sang|played] until the moon [came up|was high in the sky].",
            '"This is the best cake of my life," said {friend}.',
        ),
    ),
    "lie": (
        (
            "One day {hero} broke {his} {elder}'s {thing}. {He} was afraid and hid it [under the bed|in the garden|behind the door].",
            "One day {hero} ate all the {food}, although {his} {elder} had said no.",
        ),
        (
            '"Who did this?" asked the {elder}. "I do not know," said {hero}, but {his} face was red.',
            "That night {he} could not sleep. {He} [thought about it|turned from side to side] for a long time.",
        ),
        (
            'In the morning {he} told the truth. "I am sorry," {he} said. "Thank you for telling me," said {his} {elder}.',
            "Then {hero} told {his} {elder} everything. After that, {he} always told the truth, and {he} slept well.",
        ),
    ),
    "promise": (
        (
            "{Hero} had promised to [help|visit|meet] {friend}, but {he} forgot, and went out to play.",
            '"I will help you tomorrow," {hero} said to {friend}. But the next day {he} went to the [river|woods|lake] to play.',
        ),
        (
            "{Friend} waited and waited, but {hero} did not come.",
            '{Friend} was [sad|angry]. "You did not come," {she} said.',
        ),
        (
            '{Hero} said that {he} was sorry, and {friend} smiled again. "Let us be friends," {she} said.',
            '"I am sorry," said {hero}. "I will never forget a friend again." And {he} kept {his} word.',
        ),
    ),
}

ENDINGS = (
    "And they lived happily ever after.",
    "From that day on, {hero} was never [lonely|sad|afraid] again.",
    "{Hero} went home [happy|tired but happy|with a smile] and slept [all night|until morning|very well].",
    "And {hero} knew that [a good friend is the best gift|being kind is better than being big|it is good to tell the truth|little ones can do great things|sharing makes everyone happy|it is never too late to try].",
    '"What a [day|wonderful day]!" said {hero}, and [closed {his} eyes|went to bed|smiled].',
    "That is how {hero} learned to [be brave|share|be patient|ask for help|listen|never give up].",
    "And if you go to {home} today, you may still [see|meet] {hero} and {friend} there.",
    "The sun went down, the [stars came out|moon came up], and everyone [was happy|went to sleep].",
)

DIARY = (
    "[Today|This morning|Yesterday] I [went|walked] to the [market|river|park|library|beach|forest] with my [friend|mother|brother|sister|dog|grandfather]. [It was warm|It was raining|The sun was shining|The wind was cold].",
    "I [saw|met|found] {a adj} {animal} [near the bridge|on the road|in the grass]. [It looked at me and ran away|It was not afraid of me|I gave it some {food}].",
    "My name is {hero} and I am [seven|eight|nine|ten] years old. I live in {place}.",
    "I like {food}, but I do not like {food2}. My [mother|father|brother] says that I [should|must] try it [once|again].",
    "When I came home, my [mother|father|grandmother] had made {food}. We ate together and [talked|laughed] about the day.",
    "I have {a colour} {thing}. My [friend|uncle|aunt|sister] {friend} gave it to me. I [keep it under my bed|take it everywhere|like it very much].",
    "In the evening I [read a book|looked at the stars|wrote a letter to {friend}|played with my {thing}]. Then I [went to bed|fell asleep].",
    "Tomorrow I want to [go to the sea|visit my friend {friend}|help my father|plant a tree|learn a new song].",
    "It was [hard|easy|fun|strange] at first, but then I [liked it|got better|was not afraid any more].",
    "I think that [friends|animals|books|rainy days|old stories] are [wonderful|important|more fun than toys].",
    "We [sat under a tree|walked along the river|looked for shells] and [ate {food}|told stories|sang a song].",
)

SCENES = (
    "The {kind} looked at the {animal}. The {animal} looked at the {kind}. [Neither said a word|Then both began to laugh].",
    "It was [late|early|nearly night], and the streets of {home} were [quiet|empty|full of people]. A [man|woman|boy|girl] with {a colour} {thing} [walked slowly by|stood at the corner|waited for the bus].",
    "The [old|little|big] house [stood|was] [on a hill|near the sea|at the end of the road]. It had [a red roof|a green door|seven windows] and a garden full of [flowers|trees|birds].",
    "[In spring|In summer|In autumn|In winter] the [village|valley|town|forest] was very [quiet|beautiful|busy]. People [worked in the fields|stayed at home|sang in the streets], and children [played outside|sat by the fire].",
    '"Where are you going?" asked {friend}. "I am going to {home}," said {hero}. "May I come with you?" "Yes, of course."',
    '"Are you [hungry|tired|cold]?" asked {hero}. "A little," said {friend}. So they [sat down|stopped] and [ate some {food}|rested under a tree|made a fire].',
    "{Hero} opened the door and [looked out|went in]. There was [nobody there|a letter on the table|a small {animal} on the chair].",
    '"What is in the [box|bag|basket]?" asked {hero}. "{A colour} {thing}," said {friend}, "and some {food} for you."',
    "The {animal} was [hungry|thirsty|tired]. It [went to the river|looked for food|lay down in the shade] and [drank some water|found some {food}|fell asleep].",
    "The rain stopped, and the sun came out. {Hero} [took off {his} coat|ran outside] and [jumped over the puddles|looked for a rainbow].",
)

ABOUT = (
    "The {animal} is [a wonderful|an interesting] animal.",
    "It [lives with people|lives in many places|is known all over the world].",
    "Many children [like|love] the {animal} because it is so [funny|gentle|clever|beautiful].",
    "If you [see|meet] {a animal}, [be quiet|do not run|stand still] and [watch it|look at it] for a while.",
    "In stories the {animal} is often [clever|brave|kind|lazy|shy|proud].",
    "[A young|An old] {animal} [sleeps|rests] most of the day.",
)

POEMS = (
    '{A adj} {noun} went out one day\nand met a [cat|mouse|bird|child] along the way.\n"[Good day|Hello]," it said, "come sit with me,\nand we will share a cup of tea."',
    "Oh {noun}, oh {noun}, so {adj} and so bright,\nyou make me happy day and night.\nI think of you when I am old,\nyou are worth more than all the gold.",
    "I saw {a noun} beneath a tree,\nit looked at me so quietly.\nI said hello, it said good day,\nand then we both went on our way.",
    "The moon is high, the sky is deep,\nthe {adj} {noun} is fast asleep.\nIt dreams of rivers, hills and sea,\nand maybe too of you and me.",
    "A {noun}, a {noun}, for all to see,\nas {adj} as it can ever be.\nIt came with spring, it stayed till fall,\nand it was loved by one and all.",
)
