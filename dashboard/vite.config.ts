/// <reference types="vitest/config" />
import { defineConfig } from "vite";

/** The server that `make dashboard` works against. */
const server = process.env["MILEPOST_SERVER"] ?? "http://127.0.0.1:8321";

export default defineConfig(({ command }) => ({
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
    emptyOutDir: true,
    target: ["chrome123", "firefox121", "safari17.5"],
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: {
      input: { index: "index.html", "milepost-job": "src/element/milepost-job.ts" },
      output: {
        entryFileNames: (chunk) => (chunk.name === "milepost-job" ? "[name].js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  server: { proxy: { "/api": server }, fs: { allow: [".."] } },
  test: { environment: "happy-dom", include: ["tests/**/*.test.{ts,tsx}"] },
}));
