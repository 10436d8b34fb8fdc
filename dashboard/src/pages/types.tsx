export function TypesPage() { return <main class="main" />; }
