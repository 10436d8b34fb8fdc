/** Text from jobs, made safe to show: a title must not be able to reorder the text around it. */

const DIRECTION = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** The text with its direction marks made visible: "gnp\u202Eexe" must not read "gnpexe" backwards. */
export const plain = (text: string): string => text.replace(DIRECTION, "\ufffd");

/** A worker's host and process id, without the part that distinguishes a reused process id. */
export const workerName = (name: string): string => name.split(":").slice(0, 2).join(":");
