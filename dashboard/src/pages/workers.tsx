export function WorkersPage() { return <main class="main" />; }
