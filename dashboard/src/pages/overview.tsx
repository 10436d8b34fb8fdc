export function OverviewPage() { return <main class="main" />; }
