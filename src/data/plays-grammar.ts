// The words and lines of the built-in corpus. Lines are five iambs. Slots: {A} adjective, {N} noun,
// {V} past tense, {I} infinitive, {G} participle, {D} determiner, {P} and {B} prepositions of one
// and two syllables, {R} a noun that rhymes with the other line of its couplet, {O} the scene's
// object, {C} the person spoken to, {M} {m} my or your.
//
// Whatever can follow a point in a scene must differ by its first word, so that a scene can have
// come about in one way only: this is what makes the corpus's entropy exact.

const words = (text: string): readonly string[] => text.trim().split(/\s+/)

export const ADJECTIVES = words(`
  gentle bitter hollow weary quiet frozen tender broken ancient faithful cruel secret lonely mighty
  humble burning sleeping wicked restless silent sacred patient distant wounded narrow noble foolish
  empty hungry heavy crimson stubborn`)

// No first letter is a vowel: "a {N}".
export const NOUNS = words(`
  moon wind star rose storm cloud dawn bird wolf horse fox bear hawk bee moth thorn leaf flame smoke
  dream song tear hope grief truth vow fear drum horn ship wheel blade coin child dog tide root word
  knife`)

/** Both past tense and participle. */
export const VERBS = words(`
  heard held kept lost found sought cursed blessed feared loved praised chased named crossed watched
  touched served asked caught burned`)

export const INFINITIVES = words(`
  cross bless wake search mend hold leave guard praise trust warn serve hear seek find greet`)

export const PARTICIPLES = words(`
  weeping singing waiting dancing falling turning calling praying hiding fading drifting watching
  dreaming shining`)

export const DETERMINERS = words("the my your our his her")
export const PREPOSITIONS = words("in by near past through from with like")
export const LONG_PREPOSITIONS = words("beside beyond upon beneath behind above within across")

export const RHYMES = [
  words("night light fight sight"),
  words("day way bay play"),
  words("sea tree knee key"),
  words("flame name game shame"),
  words("wall hall fall call"),
  words("snow crow bow foe"),
  words("land hand sand band"),
  words("rain chain plain grain"),
  words("king ring spring string"),
  words("skies eyes lies cries"),
  words("well bell spell shell"),
  words("bride pride side guide"),
  words("stream beam dream team"),
  words("stone throne bone loan"),
  words("air stair chair prayer"),
  words("door floor shore war"),
]

export const OBJECTS = [
  "silver ring",
  "golden crown",
  "velvet glove",
  "copper key",
  "crystal cup",
  "painted mask",
  "iron sword",
  "marble rose",
  "paper ship",
  "leather book",
  "wooden horse",
  "hollow drum",
]

/** A role and how the others address it. */
export const ROLES = {
  KING: "my lord",
  QUEEN: "my queen",
  FOOL: "good fool",
  NURSE: "dear nurse",
  POET: "sweet bard",
  MAID: "fair maid",
  KNIGHT: "brave knight",
  GHOST: "pale ghost",
  WITCH: "old witch",
  MONK: "kind monk",
  THIEF: "sly thief",
  JUDGE: "wise judge",
} as const
export type Role = keyof typeof ROLES

export const PLACES = words(
  "garden chapel harbor castle kitchen cellar bridge tavern market forest tower courtyard",
)
export const TIMES = [
  "at midnight",
  "at noon",
  "at dawn",
  "at dusk",
  "in the rain",
  "in the snow",
  "under a red moon",
  "before the storm",
]
export const SOUNDS = words("bell horn drum raven wolf trumpet whistle thunderclap")

export const REFRAINS = [
  "Sing low, sing low, the year is growing old",
  "Ring out, ring out, and let the tale be told",
  "Turn round, turn round, the dance is never done",
  "Blow soft, blow soft, there is but one warm sun",
  "Hush now, hush now, the world is half asleep",
  "Sail on, sail on, the water here is deep",
]

/** The lines of each part of a scene: first the loss of the object, then the search, its return,
 * and an end that is glad or sad. */
export const LINES = {
  loss: [
    "{M} {O} was stolen {P} {D} {R}",
    "I kept the {O} {B} {D} {R}",
    "Alas, {C}, I {V} {D} {A} {R}",
    "The {A} {N} is {G} {P} {D} {R}",
    "No {N} will sing, no {N} will {I} {D} {R}",
    "And when {D} {N} had gone, I {V} {D} {R}",
    "Where is the {O}, and where {D} {R}?",
    "So cold {D} {N}, so {A} grows {D} {R}",
    "You {V} a {N}, {C}, {B} {D} {R}",
    "When {A} {N} and {N} were {P} {D} {R}",
  ],
  search: [
    "I swear I never {V} {D} {A} {R}",
    "Perhaps the {A} {N} has {V} {D} {R}",
    "Who took {m} {O} {B} {D} {R}?",
    "Who leaves a {N} {B} {D} {A} {R}?",
    "Go ask {D} {N}, go ask {D} {A} {R}",
    "Some {A} {N} was {G} {P} {D} {R}",
    "You {V} {D} {N}, {C}, you {V} {D} {R}",
    "If not {D} {N}, then let us {I} {D} {R}",
    "There walks a {N} tonight {B} {D} {R}",
    "Be still, {C}, {D} {N} has {V} {D} {R}",
  ],
  return: [
    "Behold the {O} {B} {D} {R}",
    "We found the {O} {B} {D} {R}",
    "It slept, {C}, {B} {D} {A} {R}",
    "The {A} {N} has {V} me {P} {D} {R}",
    "A {N} had hidden it {B} {D} {R}",
    "How {A} is {D} {N}, how near {D} {R}",
    "Speak low, {C}, {D} {N} has {V} {D} {R}",
    "I {V} {D} {N} until I {V} {D} {R}",
    "By {A} {N} and {N} I {V} {D} {R}",
    "This {A} {N} was {G} {P} {D} {R}",
  ],
  glad: [
    "Now every {N} shall {I} {D} {A} {R}",
    "Rejoice, {C}, and {I} {D} {A} {R}",
    "The {O} shall shine {B} {D} {R}",
    "My heart is like a {N} {B} {D} {R}",
    "Let every {A} {N} forgive {D} {R}",
    "Come sing, {C}, and {I} {D} {A} {R}",
    "We lost {D} {N}, but we have {V} {D} {R}",
    "I thought I {V} a {N} {B} {D} {R}",
    "O {A} {N}, O {N}, O {A} {R}",
    "As {N} to {N}, so I, {C}, to {R}",
  ],
  sad: [
    "The {O} is broken like {D} {R}",
    "Farewell, {C}, farewell {D} {A} {R}",
    "What {A} {N} can ever {I} {D} {R}?",
    "Let {N} and {N} be buried {P} {D} {R}",
    "I {V} {D} {N}, and nothing but {D} {R}",
    "Go tell {D} {N} that I have {V} {D} {R}",
    "So dies {D} {N}, so dies {D} {A} {R}",
    "No more, {C}, {D} {N} will {I} {D} {R}",
    "O {A} {N}, O {N}, O {A} {R}",
    "My {A} {N} is {G} {P} {D} {R}",
  ],
} as const
export type Part = keyof typeof LINES
