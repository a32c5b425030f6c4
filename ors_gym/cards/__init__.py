"""What notebooks show: HTML cards of episodes, tools, tasks and prompts.

A card is one element that brings its style along, asks the network for nothing, runs
nothing, and has every text of a server or a model escaped.
"""

from ors_gym.cards.conversation import Fact, conversation_card, reward_fact
from ors_gym.cards.frame import card, message_card
from ors_gym.cards.listing import prompt_card, tasks_card, tools_card

__all__ = [
    "Fact",
    "card",
    "conversation_card",
    "message_card",
    "prompt_card",
    "reward_fact",
    "tasks_card",
    "tools_card",
]
