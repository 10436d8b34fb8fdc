/** Makes form fields from a JSON schema, and values of the schema from typed text. */

export interface Field {
  name: string;
  kind: "text" | "secret" | "whole" | "number" | "boolean" | "choice" | "time" | "json";
  required: boolean;
  initial: string;
  choices: string[];
  hint: string;
  description: string;
  /** The values of the choices, if they are not texts. */
  values: unknown[];
}

type Schema = Record<string, unknown>;

export function fieldsOf(schema: Schema, secrets: readonly string[]): Field[] {
  const properties = (schema["properties"] ?? {}) as Record<string, Schema>;
  const required = new Set((schema["required"] ?? []) as string[]);
  const settable = Object.entries(properties).filter(([, shape]) => shape["readOnly"] !== true);
  return settable.map(([name, shape]) => {
    const plain = resolved(withoutNull(resolved(shape, schema)), schema);
    const values = Array.isArray(plain["enum"]) ? plain["enum"] : "const" in plain ? [plain["const"]] : [];
    const fallback = shape["default"];
    const kind = secrets.includes(name) ? "secret" : values.length > 0 ? "choice" : kindOf(plain);
    return {
      name,
      kind,
      required: required.has(name),
      initial: fallback === undefined || fallback === null ? "" : typeof fallback === "string" ? fallback : JSON.stringify(fallback),
      choices: values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))),
      values,
      hint: kind === "json" ? (plain["type"] === "array" ? "[…]" : "{…}") : "",
      description: typeof shape["description"] === "string" ? shape["description"] : "",
    };
  });
}

function resolved(shape: Schema, root: Schema): Schema {
  const ref = shape["$ref"];
  if (typeof ref !== "string" || !ref.startsWith("#/")) return shape;
  let at: unknown = root;
  for (const step of ref.slice(2).split("/")) at = (at as Schema | undefined)?.[step];
  return typeof at === "object" && at !== null ? (at as Schema) : shape;
}

function withoutNull(shape: Schema): Schema {
  if (Array.isArray(shape["type"])) {
    const types = (shape["type"] as string[]).filter((type) => type !== "null");
    return types.length === 1 ? { ...shape, type: types[0] } : shape;
  }
  const any = (shape["anyOf"] ?? shape["oneOf"]) as Schema[] | undefined;
  const rest = any?.filter((one) => one["type"] !== "null");
  return rest?.length === 1 ? (rest[0] as Schema) : shape;
}

function kindOf(shape: Schema): Field["kind"] {
  switch (shape["type"]) {
    case "string":
      return shape["format"] === "date-time" ? "time" : "text";
    case "integer":
      return "whole";
    case "number":
      return "number";
    case "boolean":
      return "boolean";
    default:
      return "json";
  }
}

/** The value for a field, or undefined to leave it to its default. Throws an Error that names the field. */
export function valueOf(field: Field, typed: string | undefined): unknown {
  if (typed === undefined) return field.required && field.kind === "boolean" ? false : undefined;
  if (field.kind === "boolean") return typed === "true";
  if (typed === "") return field.required && field.kind === "text" ? "" : undefined;
  switch (field.kind) {
    case "whole":
    case "number": {
      const value = Number(typed);
      if (!Number.isFinite(value) || (field.kind === "whole" && !Number.isInteger(value))) {
        throw new Error(`${field.name}: ${typed} is not a ${field.kind === "whole" ? "whole " : ""}number`);
      }
      // Larger whole numbers are not exact in a browser, which would send another number.
      if (field.kind === "whole" && !Number.isSafeInteger(value)) throw new Error(`${field.name}: ${typed} is too large for this form`);
      return value;
    }
    case "choice":
      return field.values[field.choices.indexOf(typed)];
    case "time":
      return new Date(typed).toISOString();
    case "json":
      try {
        return JSON.parse(typed) as unknown;
      } catch {
        throw new Error(`${field.name}: this is not JSON`);
      }
    default:
      return typed;
  }
}
