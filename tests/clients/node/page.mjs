// Pages made with the older `useStream` of @langchain/langgraph-sdk/react.
import { useStream } from "@langchain/langgraph-sdk/react";
import { said } from "./harness.mjs";

/** What a page reads of the hook while it renders: only then are the streams for it asked for. */
export function usePage(options) {
  const stream = useStream(options);
  const { messages, values, interrupt, isLoading, error } = stream;
  return { stream, messages, values, interrupt, isLoading, error };
}

export const answered = (answer) => (now) => !now.isLoading && said(now.messages).at(-1) === answer;
