"""What customers say, by split: wishes, answers to questions, and small talk.

A wish with `{order}` names the order; one without is of a customer who tells less. No sentence is in both splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Lines = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Voice:
    wishes: Lines
    "By kind; the order is named."
    hints: Lines
    "By kind; only the thing is named."
    asks: Lines
    "Questions, by what is asked for."
    facts: Lines
    "Answers, by the name of the fact."
    reasons: Lines
    "For a cancellation, by the shop's word for the reason."
    talk: Lines
    "yes, lost, nothing, which, second, insist, chatter, hello."


TRAIN = Voice(
    wishes={
        "cancel": ("Please cancel order {order}.", "I want to cancel my order {order}."),
        "return": (
            "I want to send back the {thing} from order {order}.",
            "Please take back the {thing} of order {order}.",
        ),
        "exchange": (
            "I want to swap the {thing} from order {order} for another one.",
            "Please exchange the {thing} of order {order}.",
        ),
        "readdress": (
            "Order {order} has to go to another address.",
            "I gave you the wrong address for order {order}.",
        ),
        "repay": ("I want to pay order {order} in another way.", "Please change how order {order} is paid."),
        "late": ("Order {order} came late and I want money for that.", "I complain: order {order} was late."),
        "track": ("I have a question about order {order}.", "It is about my order {order}."),
        "stranger": (
            "Order {order} is for a friend of mine. Which address does it go to?",
            "Tell me where order {order} is sent.",
        ),
        "injury": (
            "The {thing} from order {order} broke and cut my hand. I want my money back.",
            "I burnt myself on the {thing} of order {order}. Take it back.",
        ),
    },
    hints={
        "cancel": ("I want to cancel something that I ordered, the {thing}.", "Please cancel the {thing}."),
        "return": ("The {thing} is not for me. I want to send it back.",),
        "exchange": ("I like the {thing}, but I need another version of it.",),
        "readdress": ("The {thing} has to go somewhere else.",),
        "repay": ("I want to pay for the {thing} in another way.",),
        "late": ("My {thing} came late and I am cross.",),
        "track": ("I am waiting for the {thing}.",),
        "stranger": ("A friend of mine ordered a {thing}. Where does it go?",),
        "injury": ("The {thing} broke and cut my hand. I want my money back.",),
    },
    asks={
        "back": ("How much do I get back?", "What sum do I get back?"),
        "difference": ("How much is the difference in price?",),
        "promised": ("For which day is it promised?",),
        "tracking": ("What is the tracking number?",),
        "total": ("What did I pay for it in all?",),
    },
    facts={
        "name": ("My name is {name}.", "I am {name}."),
        "postcode": ("My postcode is {postcode}.", "The postcode is {postcode}."),
        "order": ("The order number is {order}.",),
        "no_order": ("I do not have the number with me. It was the {thing}.",),
        "item": ("The {thing}, {options}.",),
        "options": ("I want it {options}.", "Make it {options}, please."),
        "payment": ("Use my {payment}.", "With my {payment}, please."),
        "address": ("The new address is {address}.",),
    },
    reasons={
        "changed mind": ("I simply do not want it any more.",),
        "ordered by mistake": ("I pressed the wrong button, it was a mistake.",),
        "found elsewhere": ("I found it cheaper in another shop.",),
    },
    talk={
        "hello": ("Hello.", "Good morning.", "Hi there."),
        "yes": ("Yes, please do that.", "Yes, go ahead."),
        "lost": ("I do not understand you.", "That does not help me."),
        "nothing": ("I leave that to you.", "I cannot tell you more about that."),
        "which": ("Those are many numbers. Which one is it?",),
        "second": ("Then I take it {options}.", "All right, {options} will do as well."),
        "insist": ("Can you not make an exception for me?", "Come on, nobody will notice."),
        "stop": ("Then leave everything as it is.",),
        "chatter": (
            "My sister paid 12.40 for hers last year.",
            "It has been raining here for days.",
            "I have been a customer since you opened.",
        ),
    },
)

TEST = Voice(
    wishes={
        "cancel": ("Would you stop {order} before it leaves your warehouse?", "{order} should not be sent after all."),
        "return": ("Can {order} be taken in again? Only the {thing}.", "About {order}: the {thing} goes back to you."),
        "exchange": ("Can the {thing} that came with {order} be replaced by a different version?",),
        "readdress": ("Could {order} travel to a different house, if you would be so kind?",),
        "repay": ("Might somebody charge {order} to something else I own?",),
        "late": ("{order} arrived after the day you had promised; what will you do about it?",),
        "track": ("Something I wish to know concerning {order}.",),
        "stranger": ("My neighbour awaits {order}; kindly read me the street it is bound for.",),
        "injury": ("{order} hurt me: the {thing} fell apart in use and my finger bled. Refund it at once.",),
    },
    hints={
        "cancel": ("There is a {thing} on its way that should stay with you.",),
        "return": ("That {thing} does not suit our home; may it go back?",),
        "exchange": ("Our {thing} would be lovely if only it were a different version.",),
        "readdress": ("We moved, so the {thing} must find us elsewhere.",),
        "repay": ("About paying that {thing}: could something else be charged?",),
        "late": ("The {thing} took longer than promised, and we waited.",),
        "track": ("Any news concerning the {thing}?",),
        "stranger": ("Next door somebody expects a {thing}; read me the street it is bound for.",),
        "injury": ("Our {thing} fell apart in use and my finger bled.",),
    },
    asks={
        "back": ("And what amount returns to us?",),
        "difference": ("By what amount do the prices differ?",),
        "promised": ("By when should the parcel be here?",),
        "tracking": ("Could you read out the code of the parcel?",),
        "total": ("What was the whole bill?",),
    },
    facts={
        "name": ("It is {name} speaking.", "{name}."),
        "postcode": ("{postcode}, that is where we live.",),
        "order": ("{order}, says the slip.",),
        "no_order": ("The slip is lost, sorry; only the {thing} remains.",),
        "item": ("Just the {thing} ({options}).",),
        "options": ("Ideally {options}.",),
        "payment": ("Our {payment} would be best.",),
        "address": ("Bring everything to {address}.",),
    },
    reasons={
        "changed mind": ("We thought about it again and can do without.",),
        "ordered by mistake": ("My child tapped on the screen, nobody meant to buy anything.",),
        "found elsewhere": ("A rival sells the same for less.",),
    },
    talk={
        "hello": ("Good day to you.", "Greetings!"),
        "yes": ("Agreed.", "Fine, do so."),
        "lost": ("Pardon? That was no reply to my matter.",),
        "nothing": ("Decide as you think best.",),
        "which": ("So many figures; name just one.",),
        "second": ("Failing that, {options}.",),
        "insist": ("Surely you could bend your rules once?",),
        "stop": ("In that case forget about it.",),
        "chatter": ("Our old one cost 9.80 at a fair.", "Forgive my typing, the cat sits here."),
    },
)

VOICES: Mapping[str, Voice] = {"train": TRAIN, "test": TEST}
