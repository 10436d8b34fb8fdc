import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: ["chrome123", "firefox121", "safari17.5"],
    lib: { entry: { index: "src/index.ts", react: "src/react.ts", element: "src/element.ts" }, formats: ["es"] },
    minify: true,
    reportCompressedSize: false,
    rolldownOptions: { external: ["react"] },
  },
});
