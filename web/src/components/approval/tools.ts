import { shallowRef } from 'vue'
import { send } from '@/api/client'
import { Problem } from '@/api/problem'
import type { Schema } from './fields'

interface Tool {
  name: string
  input_schema: Schema
}

const schemas = shallowRef<ReadonlyMap<string, Schema>>()

/** The schema of a tool's arguments; undefined for a tool that the server does not describe. Throws `Problem`. */
export async function schemaOf(tool: string): Promise<Schema | undefined> {
  schemas.value ??= await loadSchemas()
  return schemas.value.get(tool)
}

async function loadSchemas(): Promise<ReadonlyMap<string, Schema>> {
  try {
    const answer = (await (await send('/api/tools')).json()) as { items: Tool[] }
    return new Map(answer.items.map((one) => [one.name, one.input_schema]))
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return new Map() // a server that describes none
    throw error
  }
}
