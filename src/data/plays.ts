// The built-in corpus: short scenes in couplets about a thing that is lost, searched for, returned,
// and then given or broken. A scene remembers who is on stage, who spoke last, what was lost and
// which refrain was sung, so there is more to learn in it than which word follows which.
//
// Each scene is a sequence of choices whose probabilities are known. The grammar lets no two
// sequences give the same text, so −log p of the choices is −log p of the text, and its mean over
// the tokens is the lowest loss that any model can reach on it.

import {
  ADJECTIVES,
  DETERMINERS,
  INFINITIVES,
  LINES,
  LONG_PREPOSITIONS,
  NOUNS,
  OBJECTS,
  PARTICIPLES,
  type Part,
  PLACES,
  PREPOSITIONS,
  REFRAINS,
  RHYMES,
  ROLES,
  type Role,
  SOUNDS,
  TIMES,
  VERBS,
} from "./plays-grammar.ts"
import { Random } from "./random.ts"

/** How a scene comes about: text that has to be there, and text that is one of several options. */
export interface Choices {
  say(text: string): void
  /** Says one of the options, with probabilities in proportion to the weights, and returns it. */
  pick<T extends string>(options: readonly T[], weights?: readonly number[]): T
}

export type Scene = { text: string; nats: number }
export type Plays = { text: string; scenes: Scene[]; nats: number }
const SLOTS: Record<string, readonly string[]> = {
  "{A}": ADJECTIVES,
  "{N}": NOUNS,
  "{V}": VERBS,
  "{I}": INFINITIVES,
  "{G}": PARTICIPLES,
  "{D}": DETERMINERS,
  "{P}": PREPOSITIONS,
  "{B}": LONG_PREPOSITIONS,
}
const RHYME_WORDS = RHYMES.flat()
const ROLE_NAMES = Object.keys(ROLES) as Role[]

// How often a speech ends after a couplet, ends with the refrain, or goes on.
const SPEECH_ENDS = 0.5
const SPEECH_REFRAIN = 0.12
// How often the scene moves on to its next part after a speech.
const PART_ENDS = 0.4

/** Writes one scene, from its heading to its last blank line. */
export function writeScene(choices: Choices): void {
  new Stage(choices).play()
}

class Stage {
  private part: Part = "loss"
  private object: string | undefined
  private refrain: string | undefined
  private readonly onStage: Role[] = []

  constructor(private readonly choices: Choices) {}

  play(): void {
    const { choices, onStage } = this
    choices.say("SCENE. The ")
    choices.pick(PLACES)
    choices.say(", ")
    choices.pick(TIMES)
    choices.say(".\n\nEnter ")
    const seeker = this.enter()
    choices.say(" and ")
    const friend = this.enter()
    choices.say(".\n\n")
    let speaker = seeker
    let listener = friend
    choices.say(header(speaker))
    while (true) {
      this.speech(speaker, listener)
      const moves = this.moves()
      const others = onStage.filter((role) => role !== speaker)
      const said = choices.pick(
        [...others.map(header), ...moves],
        [
          ...others.map(() => (1 - PART_ENDS) / others.length),
          ...moves.map(() => PART_ENDS / moves.length),
        ],
      )
      const next = others.find((role) => said === header(role))
      if (next) {
        listener = speaker
        speaker = next
        continue
      }
      if (said === "Exeunt.\n\n") return
      this.move(said)
      // The one who is startled by the sound answers the last speech; the finder speaks to the
      // seeker, and the seeker to the finder.
      const previous = speaker
      if (this.part === "search") speaker = others[0]!
      else speaker = this.part === "return" ? onStage[2]! : seeker
      if (this.part === "search") listener = previous
      else listener = this.part === "return" ? seeker : onStage[2]!
      choices.say(header(speaker))
    }
  }

  private enter(): Role {
    const role = this.choices.pick(ROLE_NAMES.filter((name) => !this.onStage.includes(name)))
    this.onStage.push(role)
    return role
  }

  /** The stage directions that can end this part of the scene. */
  private moves(): string[] {
    const [seeker, , finder] = this.onStage
    if (this.part === "loss") return ["A "]
    if (this.part === "search") return ["Enter "]
    if (this.part === "return") {
      return [
        `${finder} gives the ${this.object} to ${seeker}.\n\n`,
        `${finder} breaks the ${this.object}.\n\n`,
      ]
    }
    return ["Exeunt.\n\n"]
  }

  /** Completes the direction that has begun and turns to the next part. */
  private move(said: string): void {
    const { choices } = this
    if (this.part === "loss") {
      choices.pick(SOUNDS)
      choices.say(" is heard.\n\n")
      this.part = "search"
    } else if (this.part === "search") {
      this.enter()
      choices.say(", with the ")
      this.sayObject()
      choices.say(".\n\n")
      this.part = "return"
    } else {
      this.part = said.includes(" gives ") ? "glad" : "sad"
    }
  }

  private speech(speaker: Role, listener: Role): void {
    const { choices } = this
    const mine = speaker === this.onStage[0]
    const lines = LINES[this.part].map((line) =>
      line
        .replace("{M}", mine ? "My" : "Your")
        .replace("{m}", mine ? "my" : "your")
        .replace("{C}", ROLES[listener]),
    )
    const openings = lines.map((line) => line.slice(0, line.indexOf("{")))
    let said: string = choices.pick(openings)
    while (true) {
      const first = this.line(lines[openings.indexOf(said)]!, ",")
      said = choices.pick(openings)
      this.line(lines[openings.indexOf(said)]!, ".", first)

      const refrains = this.refrain ? [this.refrain] : REFRAINS
      const goesOn = 1 - SPEECH_ENDS - SPEECH_REFRAIN
      said = choices.pick(
        ["\n", ...refrains, ...openings],
        [
          SPEECH_ENDS,
          ...refrains.map(() => SPEECH_REFRAIN / refrains.length),
          ...openings.map(() => goesOn / openings.length),
        ],
      )
      if (said === "\n") return
      if (refrains.includes(said)) {
        this.refrain = said
        choices.say(".\n\n")
        return
      }
    }
  }

  /** The rest of a line whose opening has been said. Returns its last word. */
  private line(line: string, stop: string, rhymeWith?: string): string {
    const { choices } = this
    let last = ""
    for (const piece of line.slice(line.indexOf("{")).split(/(\{.\})/)) {
      const slot = SLOTS[piece]
      if (slot) choices.pick(slot)
      else if (piece === "{O}") this.sayObject()
      else if (piece === "{R}") last = choices.pick(rhymes(rhymeWith))
      else choices.say(piece)
    }
    choices.say(line.endsWith("?") ? "\n" : `${stop}\n`)
    return last
  }

  private sayObject(): void {
    if (this.object) this.choices.say(this.object)
    else this.object = this.choices.pick(OBJECTS)
  }
}

const header = (role: Role): string => `${role}:\n`

function rhymes(word?: string): readonly string[] {
  if (word === undefined) return RHYME_WORDS
  return RHYMES.find((group) => group.includes(word))!.filter((other) => other !== word)
}

/** Draws the choices and adds up −log of their probabilities. */
class Author implements Choices {
  text = ""
  nats = 0

  constructor(private readonly random: Random) {}

  say(text: string): void {
    this.text += text
  }

  pick<T extends string>(options: readonly T[], weights?: readonly number[]): T {
    let index: number
    if (weights) {
      const total = weights.reduce((sum, weight) => sum + weight, 0)
      let left = this.random.uniform() * total
      index = 0
      while (index < options.length - 1 && left >= weights[index]!) left -= weights[index++]!
      this.nats -= Math.log(weights[index]! / total)
    } else {
      index = this.random.below(options.length)
      this.nats += Math.log(options.length)
    }
    const option = options[index]!
    this.text += option
    return option
  }
}

/** Whole scenes until there are at least `bytes` of text, which is ASCII. */
export function generatePlays({ seed, bytes }: { seed: number; bytes: number }): Plays {
  const random = new Random(seed)
  const scenes: Scene[] = []
  let length = 0
  let nats = 0
  while (length < bytes) {
    const author = new Author(random)
    writeScene(author)
    scenes.push({ text: author.text, nats: author.nats })
    length += author.text.length
    nats += author.nats
  }
  return { text: scenes.map((scene) => scene.text).join(""), scenes, nats }
}
