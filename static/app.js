// Makes pages live and quick to use. Every page works without it.
import { startCopying, startDialogs, startDrafts } from "./forms.js";
import { startHeat } from "./heat.js";
import { startHolding } from "./held.js";
import { startKeys } from "./keys.js";
import { startLive } from "./live.js";
import { startPalette } from "./palette.js";
import { startSuggesting } from "./suggest.js";
import { startTimes } from "./times.js";

startTimes();
startCopying();
startDialogs();
startDrafts();
startHeat();
if (document.body.dataset.liveUrl) {
  startPalette();
  startSuggesting();
  startHolding();
  startKeys(startLive());
}
