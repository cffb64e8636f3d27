"""Words and sentences of the stories; {name} and the like are filled in by stories.py."""

NAMES = {
    "he": ["Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Jack", "Oscar", "Paul", "Hugo", "Adam", "Karl"],
    "she": ["Lily", "Mia", "Anna", "Rosa", "Zoe", "Ella", "Nora", "Ruby", "Eva", "Clara", "Jane", "Maya"],
}
OWN = {"he": "his", "she": "her"}
OBJECT_CASE = {"he": "him", "she": "her"}
KEPT = {
    "animal": ["fox", "rabbit", "bear", "mouse", "cat", "frog", "duck", "goat", "dog", "pig", "hen", "wolf"],
    "home": ["forest", "village", "garden", "valley", "barn", "farm", "hills", "meadow", "woods", "castle"],
    "colour": ["red", "blue", "green", "yellow", "white", "golden", "silver", "brown", "black", "pink"],
    "thing": [
        "ball",
        "kite",
        "hat",
        "boat",
        "drum",
        "bell",
        "cup",
        "lamp",
        "book",
        "box",
        "ring",
        "key",
        "coat",
        "flag",
    ],
    "place": ["river", "bridge", "hill", "pond", "mill", "well", "tree", "wall", "gate", "lake", "road", "cave"],
    "food": ["bread", "apples", "soup", "cheese", "honey", "berries", "cake", "nuts", "milk", "plums"],
    "time": ["morning", "day", "afternoon", "evening", "night"],
}
"""Chosen once for a story."""
FRESH = {
    "trait": ["little", "brave", "shy", "clever", "quiet", "happy", "young", "kind", "proud", "small", "funny", "lazy"],
    "weather": ["sunny", "rainy", "windy", "cold", "warm", "foggy", "snowy", "bright", "dark", "hot"],
    "how": ["slowly", "quickly", "softly", "sadly", "gladly", "kindly", "loudly", "quietly", "at once", "at last"],
    "look": ["old", "big", "long", "tall", "new", "round", "pretty", "strange", "wet", "dusty"],
    "mood": ["sad", "happy", "tired", "hungry", "angry", "afraid", "calm", "glad", "sleepy", "excited"],
    "while_": ["an hour", "a long time", "a while", "a minute", "half a day", "two hours"],
    "near": ["near", "behind", "beside", "under", "by", "next to"],
    "person": ["mother", "father", "sister", "brother", "uncle", "aunt", "grandmother", "teacher"],
    "act": ["sang", "danced", "laughed", "smiled", "rested", "waited", "played", "talked"],
}
"""Chosen anew wherever it stands."""

OPENING = [
    [
        "{name} was a {trait} {animal} who lived in the {home}.",
        "In the {look} {home} there lived a {trait} {animal} named {name}.",
        "Once a {trait} and {trait} {animal} called {name} lived in the {home}.",
        "{name} the {animal} was {trait} and always {mood}.",
    ],
    [
        "{He} had a {colour} {thing} from {his} {person}.",
        "{His} {person} gave {him} a {look} {colour} {thing}.",
        "Every {time} {he} {act} with {his} {colour} {thing}.",
        "{His} {person} had made {him} a {colour} {thing}, and {he} was {mood}.",
    ],
    [
        "One {weather} {time}, {name} walked {how} to the {look} {place}.",
        "One {weather} {time} {he} took the {thing} down to the {place}.",
        "It was a {weather} and {weather} {time}, so {name} went to the {place}.",
        "After {while_} {he} came to a {look} {place} and {act}.",
    ],
]

PLOTS = {
    "lost": [
        [
            "But {near} the {place} the {thing} was gone.",
            "Then {he} looked down and the {colour} {thing} was not there.",
            "{near_} the {place} {he} lost the {thing} and felt {mood}.",
        ],
        [
            "{name} sat down {near} the {place} and cried {how}.",
            "{name} looked {near} every {look} stone.",
            '"Where is my {look} {thing}?" said {name} {how}.',
            "{name} was {mood} and looked for {while_}.",
        ],
        [
            "{friend} the {trait} {animal2} heard {him} and came {how}.",
            "A {trait} {animal2} named {friend} came by and asked {how} what was wrong.",
            "Then {friend}, a {mood} {animal2}, came out of the {home}.",
        ],
        [
            "They looked for {while_}, and {friend} found the {colour} {thing} {near} the {place}.",
            '"Is this your {colour} {thing}?" asked {friend} {how}.',
            "{friend} had seen a {colour} {thing} {near} a {look} stone.",
        ],
        [
            "{name} thanked {friend} {how} and gave {him2} some {food}.",
            '"Thank you, {friend}!" said {name}, and they ate {food} for {while_}.',
            "They {act} and {act} and ate {food}.",
        ],
        [
            "From then on, {name} never lost the {thing} again.",
            "Since that {weather} {time} {name} and {friend} have been {trait} friends.",
            "{name} held the {colour} {thing} all the way home to the {home} and was {mood}.",
        ],
    ],
    "share": [
        [
            "There {he} met {friend}, a {trait} {animal2} who had nothing to play with.",
            "{friend} the {trait} {animal2} {act} {near} the {place} all alone.",
            "There {he} saw a {mood} {animal2} named {friend}.",
        ],
        [
            '"What a {look} {thing}!" said {friend} {how}.',
            "{friend} looked at the {colour} {thing} for {while_}.",
            '"May I play with your {colour} {thing}?" asked {friend} {how}.',
        ],
        [
            "At first {name} {how} said no.",
            "{name} was {mood} and did not want to give the {thing} away.",
            "{name} held the {thing} {how} and thought for {while_}.",
        ],
        [
            "But {friend} had some {food}, and {he2} gave half of it to {name}.",
            "Then {friend} {how} gave {name} some {look} {food} and {act}.",
            "But {friend} looked so {mood} that {name} {how} changed {his} mind.",
        ],
        [
            "So {name} let {friend} have the {colour} {thing} for {while_}.",
            '"Here, you can have a turn," said {name} {how}.',
            "So they {act} with the {look} {thing} {near} the {place}.",
        ],
        [
            "{name} told {his} {person} that sharing is fun.",
            "Now the {colour} {thing} belongs to {name} and {friend}.",
            "{name} and {friend} went {how} back to the {home}, and both were {mood}.",
        ],
    ],
    "storm": [
        [
            "Soon a {look} storm came over the {home}.",
            "Then the sky went {weather} and the wind blew for {while_}.",
            "All at once there was a {look} noise {near} the {place}.",
        ],
        [
            "The wind took the {colour} {thing} and threw it {near} the {place}.",
            "{name} ran {how} behind the {place} and held the {thing}.",
            "{name} was {mood} and called {how} for {his} {person}.",
        ],
        [
            '"Come in, come in!" called {friend} the {animal2} {how} from a {look} hole.',
            "A {trait} {animal2} named {friend} {how} opened a door {near} the {place}.",
            "{friend} the {trait} {animal2} lived there and let {him} in {how}.",
        ],
        [
            "Inside it was {weather}, and {friend} {how} gave {him} {food}.",
            "{friend} made a {look} fire, and they ate {food}.",
            "They ate {look} {food} and {act} for {while_}.",
        ],
        [
            "After the storm {name} gave {friend} the {colour} {thing} to say thank you.",
            "When the sun came back, they found the {colour} {thing} {near} the {place}.",
            "Then it was {weather}, and {friend} {how} walked {name} home.",
        ],
        [
            "{name} was never {mood} in a storm again.",
            "Every {weather} {time} {name} visits {friend} with some {food}.",
            "That is how {name} the {animal} and {friend} the {animal2} became {trait} friends.",
        ],
    ],
    "race": [
        [
            "At the {place} {friend} the {trait} {animal2} was waiting {how}.",
            "{friend}, a {trait} {animal2}, stood {near} the {place}.",
            "There {he} met a {mood} {animal2} named {friend}, who {act} {how}.",
        ],
        [
            '"I can run faster than you," said {friend} {how}.',
            '"Let us race for your {colour} {thing}," said {friend}.',
            "{friend} said {how} that no {animal} could ever win a race.",
        ],
        [
            "{name} was {mood}, but {he} {how} said yes.",
            '"We will see," said {name} {how}.',
            "{name} put the {thing} {near} the {place} and got ready.",
        ],
        [
            "They ran {how} from the {place} to the {home}.",
            "{friend} ran so fast that {he2} fell into the {look} mud.",
            "After {while_} {friend} stopped {near} a {look} stone to eat some {food}.",
        ],
        [
            "{name} did not stop, and {he} won after {while_}.",
            "{name} went on {how}, step by step, and came in first.",
            "{name} could have won, but {he} went back {how} to help {friend}.",
        ],
        [
            '"You are a {trait} runner, {name}," said {friend}, and they shared some {food}.',
            "{name} took the {colour} {thing} {how} home to {his} {person}.",
            "After that {friend} was never so {trait} again, and both were {mood}.",
        ],
    ],
}
