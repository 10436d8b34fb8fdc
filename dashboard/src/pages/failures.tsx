export function FailuresPage() { return <main class="main" />; }
