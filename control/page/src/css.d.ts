declare module "*.css"; // esbuild collects them into app.css
