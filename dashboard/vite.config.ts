/// <reference types="vitest/config" />
import { defineConfig } from "vite";

/** The server that `make dashboard` works against. */
const server = process.env["MILEPOST_SERVER"] ?? "http://127.0.0.1:8321";

const element = {
  // One file without parts, so that any page can take it from anywhere.
  input: { "milepost-job": "src/element/milepost-job.ts" },
  output: { entryFileNames: "[name].js" },
};

const page = {
  input: { index: "index.html" },
  output: {
    entryFileNames: "assets/[name]-[hash].js",
    chunkFileNames: "assets/[name]-[hash].js",
    assetFileNames: "assets/[name]-[hash][extname]",
  },
};

export default defineConfig(({ command, mode }) => ({
  base: "./",
  plugins: [
    {
      // The server writes the relative path to its API here; the development server does the same.
      name: "api-path",
      transformIndexHtml: (html: string) => (command === "serve" ? html.replaceAll("%API%", "./api") : html),
    },
  ],
  build: {
    outDir: process.env["MILEPOST_STATIC"] ?? "../src/milepost/web/static",
    emptyOutDir: mode !== "element",
    target: ["chrome123", "firefox121", "safari17.5"],
    modulePreload: mode === "element" ? (false as const) : { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: mode === "element" ? element : page,
  },
  server: { proxy: { "/api": server }, fs: { allow: [".."] } },
  test: { environment: "happy-dom", include: ["tests/**/*.test.{ts,tsx}"] },
}));
